"""The ONNX graph of the device probe, shipped as `models/weights/device_probe.onnx`. Needs the `onnx` package."""

from __future__ import annotations

import onnx
from onnx import helper

from trendflow.models.device import probe_inputs
from trendflow.models.graph_builder import GraphBuilder


def probe_graph() -> onnx.ModelProto:
    """`convolution` [1,16,30,30] of `image` and `kernel`, `product` [64,32] of `left` and `right`; no weights."""
    builder = GraphBuilder({})
    builder.node("Conv", ["image", "kernel"], "convolution")
    builder.node("MatMul", ["left", "right"], "product")
    float32 = onnx.TensorProto.FLOAT
    return builder.model(
        "device_probe",
        [helper.make_tensor_value_info(name, float32, array.shape) for name, array in probe_inputs().items()],
        [
            helper.make_tensor_value_info("convolution", float32, [1, 16, 30, 30]),
            helper.make_tensor_value_info("product", float32, [64, 32]),
        ],
    )
