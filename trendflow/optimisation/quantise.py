"""Static int8 quantisation of an ONNX model, with layers that stay in float.

The result is a pure function of model, calibration inputs and package versions. Weights get seven of their eight bits:
without VNNI two products of eight bits saturate the sum of sixteen that x86 adds them up in. Activations are uint8,
their ranges the smallest and largest value that calibration saw. Needs the `onnx` package.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.onnx_graph import drop_unused_domains, halve_lossless, merge_max_pool_padding, serialise

Feed = Mapping[str, np.ndarray]

_LAYERS = ("Conv", "Gemm", "MatMul")
_ACTIVATIONS = ("Clip", "LeakyRelu", "Relu")
# What hands values from layer to layer. What makes outputs of them (Sigmoid, Softmax, Split, Reshape, Transpose) stays
# in float: it takes no time, and its rounding would be that of the result.
_BETWEEN = ("Add", "AveragePool", "Concat", "GlobalAveragePool", "MaxPool", "Resize")

METHOD = {
    "calibration": "minmax",
    "activations": "uint8",
    "weights": "int8 per channel, 7 bits",
    "format": "QDQ",
}


class _Reader(CalibrationDataReader):
    """Gives inputs one by one, as the calibrator asks for them."""

    def __init__(self, feeds: Iterator[Feed]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, np.ndarray] | None:
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


class Quantiser:
    """One model on its way to int8; `folder` holds its intermediate files."""

    def __init__(self, model: Path, folder: Path) -> None:
        """Optimise the graph: constants folded, normalisation merged into convolutions, shapes inferred."""
        self._graph = folder / "optimised.onnx"
        self._ranges = folder / "ranges.json"
        self._scratch = folder / "quantised.onnx"
        merged = folder / "merged.onnx"
        onnx.save_model(merge_max_pool_padding(onnx.load(model)), merged)
        quant_pre_process(merged, self._graph, skip_symbolic_shape=True)
        graph = onnx.load(self._graph).graph
        nodes = graph.node
        self.layers = tuple(node.name for node in nodes if node.op_type in _LAYERS)
        """Layers with weights, in the order of execution."""
        self.last = _last_layers(nodes)
        """Layers after which no other comes, in the order of execution: their rounding would be that of the result."""
        self.products = _products(graph)
        """Multiplications of every layer for one input."""
        makers = {node.output[0]: node.name for node in nodes if node.op_type in _LAYERS}
        self._activations = {
            makers[node.input[0]]: node.name
            for node in nodes
            if node.op_type in _ACTIVATIONS and node.input[0] in makers
        }
        self._neighbours, behind = _neighbours(nodes)
        self._second_rounding = {
            node.name: behind.get(node.output[0], frozenset()) for node in nodes if node.op_type == "LeakyRelu"
        }

    def calibrate(self, feeds: Iterator[Feed]) -> None:
        """Record the range of every activation. Raises `model_spec_invalid` when one is not finite."""
        self._ranges.unlink(missing_ok=True)
        self._write(_Reader(feeds), ())
        rows = json.loads(self._ranges.read_bytes())["data"]
        for name, row in rows.items():
            if not np.isfinite([*row["lowest"]["data"], *row["highest"]["data"]]).all():
                raise TrendFlowError(
                    "model_spec_invalid", f"The activation {name!r} has no finite range and cannot be quantised."
                )

    def quantise(self, in_float: Collection[str] = ()) -> bytes:
        """The int8 model; the layers `in_float` stay as they are."""
        self._write(None, in_float)
        # The weights of layers in float are stored as the reference stores them.
        return serialise(halve_lossless(drop_unused_domains(onnx.load(self._scratch))))

    def _write(self, reader: _Reader | None, in_float: Collection[str]) -> None:
        # The activation of a layer in float stays in float with it. Quantised alone it would first round what the layer
        # gives, over a range that it is there to cut off.
        excluded = {*in_float, *(self._activations[name] for name in in_float if name in self._activations)}
        # What hands values from or to a layer in float stays in float too: it would round what no layer in int8 needs
        # rounded, and the values of all its inputs over the widest of their ranges.
        excluded |= {name for name, layers in self._neighbours.items() if not layers.isdisjoint(in_float)}
        # Relu and Clip end the range that their layer is rounded over, LeakyRelu is rounded once more behind it. That
        # is for nothing where no layer in int8 reads it.
        excluded |= {name for name, layers in self._second_rounding.items() if layers.issubset(in_float)}
        quantize_static(
            str(self._graph),
            str(self._scratch),
            reader,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*_LAYERS, *_ACTIVATIONS, *_BETWEEN],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=sorted(excluded),
            calibration_cache_path=str(self._ranges),
        )


def _last_layers(nodes: Sequence[onnx.NodeProto]) -> tuple[str, ...]:
    """Nodes with weights from which no other is reached; `nodes` are in topological order, as ONNX demands."""
    followed: set[str] = set()
    last = []
    for node in reversed(nodes):
        is_layer = node.op_type in _LAYERS
        if is_layer and followed.isdisjoint(node.output):
            last.append(node.name)
        if is_layer or not followed.isdisjoint(node.output):
            followed.update(node.input)
    return tuple(reversed(last))


def _products(graph: onnx.GraphProto) -> dict[str, int]:
    """Weights of every layer times the places of its output that they are used for; places unknown count as one."""
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    places = {
        value.name: math.prod(max(1, dim.dim_value) for dim in value.type.tensor_type.shape.dim[2:])
        for value in (*graph.value_info, *graph.output)
    }
    return {
        node.name: sizes.get(node.input[1], 1) * places.get(node.output[0], 1)
        for node in graph.node
        if node.op_type in _LAYERS
    }


def _neighbours(
    nodes: Sequence[onnx.NodeProto],
) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
    """Layers before and behind every operator of `_BETWEEN`, and behind every tensor, with no layer in the middle.

    `nodes` are in topological order.
    """
    through = (*_ACTIVATIONS, *_BETWEEN)
    before: dict[str, frozenset[str]] = {}
    behind: dict[str, frozenset[str]] = {}
    nothing: frozenset[str] = frozenset()
    for node in nodes:
        if node.op_type in _LAYERS:
            found = frozenset({node.name})
        else:
            found = nothing.union(*(before.get(x, nothing) for x in node.input)) if node.op_type in through else nothing
        before.update(dict.fromkeys(node.output, found))
    neighbours = {}
    for node in reversed(nodes):
        if node.op_type in _LAYERS:
            found = frozenset({node.name})
        elif node.op_type in through:
            found = nothing.union(*(behind.get(x, nothing) for x in node.output))
        else:
            continue
        for x in node.input:
            behind[x] = behind.get(x, nothing) | found
        if node.op_type in _BETWEEN:
            neighbours[node.name] = found.union(*(before[x] for x in node.input if x in before))
    return neighbours, behind


def half(model: Path) -> bytes:
    """The model with weights and arithmetic in float16 and its inputs and outputs unchanged."""
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    converted = ONNXModel(convert_float_to_float16(onnx.load(model), keep_io_types=True))
    converted.topological_sort()  # the casts of the inputs stand behind the nodes that read them
    return serialise(drop_unused_domains(converted.model))
