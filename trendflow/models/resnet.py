"""A residual network as an ONNX classifier, built from the weights alone.

Architecture: He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), with bottleneck blocks, in the
variant of torchvision: the stride of a stage sits on the 3x3 convolution of its first block. Tensor names are
torchvision's. Needs the `onnx` package.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from trendflow.models.graph_builder import GraphBuilder

IMAGE_SIZE = 224
STAGES = 4
BATCH_NORM_EPSILON = 1e-5


class _Builder(GraphBuilder):
    def convolution(self, x: str, conv: str, norm: str, stride: int = 1) -> str:
        """Bias-free convolution with symmetric padding that keeps the size at stride 1, then batch normalisation."""
        weight = self.weight(f"{conv}.weight")
        kernel = self.tensor(weight).shape[-1]
        out = self.node(
            "Conv",
            [x, weight],
            conv,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
        )
        return self.batch_norm(out, norm, BATCH_NORM_EPSILON)

    def relu(self, x: str) -> str:
        return self.node("Relu", [x], f"{x}.relu")

    def bottleneck(self, x: str, prefix: str, stride: int) -> str:
        """1x1, 3x3, 1x1; the input is added, through a projection where the shapes differ."""
        inner = self.relu(self.convolution(x, f"{prefix}.conv1", f"{prefix}.bn1"))
        inner = self.relu(self.convolution(inner, f"{prefix}.conv2", f"{prefix}.bn2", stride))
        inner = self.convolution(inner, f"{prefix}.conv3", f"{prefix}.bn3")
        if f"{prefix}.downsample.0.weight" in self.weights:
            x = self.convolution(x, f"{prefix}.downsample.0", f"{prefix}.downsample.1", stride)
        return self.relu(self.node("Add", [inner, x], f"{prefix}.sum"))


def resnet_classifier(weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """`images` float32 [B,3,224,224], normalised RGB → `logits` float32 [B,classes].

    `weights` are the tensors of the checkpoint by torchvision's names; depths, widths and the number of classes are
    theirs. Raises `weights_missing` when one is absent.
    """
    builder = _Builder(weights)
    x = builder.relu(builder.convolution("images", "conv1", "bn1", stride=2))
    x = builder.node("MaxPool", [x], "maxpool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage in range(1, STAGES + 1):
        depth = len({name.split(".")[1] for name in weights if name.startswith(f"layer{stage}.")})
        for block in range(depth):
            x = builder.bottleneck(x, f"layer{stage}.{block}", stride=2 if stage > 1 and block == 0 else 1)
    pooled = builder.node("ReduceMean", [x], "pooled", axes=[2, 3], keepdims=0)
    builder.node("Gemm", [pooled, builder.weight("fc.weight"), builder.weight("fc.bias")], "logits", transB=1)
    classes = builder.tensor("fc.bias").shape[0]
    return builder.model(
        "resnet",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["B", 3, IMAGE_SIZE, IMAGE_SIZE])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["B", classes])],
    )
