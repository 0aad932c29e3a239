"""EfficientNet-Lite0 as an ONNX feature extractor, built from the weights alone. Needs the `onnx` package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from trendflow.models.efficientnet_facts import BATCH_NORM_EPSILON, BLOCKS, FEATURES, IMAGE_SIZE, same_padding
from trendflow.models.graph_builder import GraphBuilder


@dataclass
class _Builder(GraphBuilder):
    """`size` is the side of the current feature map in pixels."""

    size: int = IMAGE_SIZE

    def convolution(self, x: str, conv: str, norm: str, stride: int = 1, depthwise: bool = False) -> str:
        """Bias-free convolution with TensorFlow's SAME padding, then batch normalisation."""
        weight = self.weight(f"{conv}.weight")
        kernel = self.weights[weight].shape[-1]
        out, before, after = same_padding(self.size, kernel, stride)
        groups = self.weights[weight].shape[0] if depthwise else 1
        x = self.node(
            "Conv",
            [x, weight],
            conv,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=groups,
        )
        self.size = out
        return self.batch_norm(x, norm, BATCH_NORM_EPSILON)

    def relu6(self, x: str) -> str:
        return self.node("Clip", [x, "relu6_low", "relu6_high"], f"{x}.relu6")

    def block(self, x: str, prefix: str, stride: int, expansion: int, residual: bool) -> str:
        """Inverted bottleneck: expand 1x1, depthwise kxk, project 1x1; input added when shapes allow."""
        start = x
        if expansion != 1:
            x = self.relu6(self.convolution(x, f"{prefix}._expand_conv", f"{prefix}._bn0"))
        x = self.relu6(self.convolution(x, f"{prefix}._depthwise_conv", f"{prefix}._bn1", stride, depthwise=True))
        x = self.convolution(x, f"{prefix}._project_conv", f"{prefix}._bn2")
        return self.node("Add", [x, start], f"{prefix}.sum") if residual else x


def feature_extractor(weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """`images` float32 [B,3,224,224], normalised RGB → `embeddings` float32 [B,1280], the pooled last feature map.

    `weights` are the tensors of the torch checkpoint by name. Raises `weights_missing` when one is absent.
    """
    builder = _Builder(weights)
    builder.constant("relu6_low", [0], np.float32)
    builder.constant("relu6_high", [6], np.float32)
    x = builder.relu6(builder.convolution("images", "_conv_stem", "_bn0", stride=2))
    index = 0
    for repeats, first_stride, expansion in BLOCKS:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            x = builder.block(x, f"_blocks.{index}", stride, expansion, residual=repeat > 0)
            index += 1
    x = builder.relu6(builder.convolution(x, "_conv_head", "_bn1"))
    builder.node("ReduceMean", [x], "embeddings", axes=[2, 3], keepdims=0)
    return builder.model(
        "efficientnet_lite0_features",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["B", 3, IMAGE_SIZE, IMAGE_SIZE])],
        [helper.make_tensor_value_info("embeddings", onnx.TensorProto.FLOAT, ["B", FEATURES])],
    )
