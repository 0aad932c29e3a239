"""EfficientNet-Lite0 in torch: the reference that the ONNX graph of `efficientnet_lite` is held against."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from trendflow.models.efficientnet_facts import BATCH_NORM_EPSILON, BLOCKS, same_padding


class FeatureExtractor:
    """`images` float32 [B,3,224,224], normalised RGB → `embeddings` float32 [B,1280], the pooled last feature map.

    `weights` are the tensors of the checkpoint by name. A missing one shows when the first batch is run, as KeyError.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self._weights = weights

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x = functional.relu6(self._convolution(inputs["images"], "_conv_stem", "_bn0", stride=2))
        index = 0
        for repeats, first_stride, expansion in BLOCKS:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                result = self._block(x, f"_blocks.{index}", stride, expansion)
                x = result + x if repeat else result
                index += 1
        x = functional.relu6(self._convolution(x, "_conv_head", "_bn1"))
        return {"embeddings": x.mean(dim=(2, 3))}

    def _block(self, x: torch.Tensor, prefix: str, stride: int, expansion: int) -> torch.Tensor:
        """Inverted bottleneck without its residual: expand 1x1, depthwise kxk, project 1x1."""
        if expansion != 1:
            x = functional.relu6(self._convolution(x, f"{prefix}._expand_conv", f"{prefix}._bn0"))
        x = functional.relu6(self._convolution(x, f"{prefix}._depthwise_conv", f"{prefix}._bn1", stride))
        return self._convolution(x, f"{prefix}._project_conv", f"{prefix}._bn2")

    def _convolution(self, x: torch.Tensor, conv: str, norm: str, stride: int = 1) -> torch.Tensor:
        """Bias-free convolution with SAME padding, then batch normalisation; depthwise where the weights are."""
        kernel = self._weights[f"{conv}.weight"]
        _, before, after = same_padding(x.shape[-1], kernel.shape[-1], stride)
        padded = functional.pad(x, (before, after, before, after))
        mean, variance, scale, shift = (
            self._weights[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        found = functional.conv2d(padded, kernel, stride=stride, groups=x.shape[1] // kernel.shape[1])
        return functional.batch_norm(found, mean, variance, scale, shift, eps=BATCH_NORM_EPSILON)
