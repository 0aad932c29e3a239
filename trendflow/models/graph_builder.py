"""Writing an ONNX graph node by node from the tensors of a checkpoint.

Unlike a traced export, the bytes depend on the checkpoint only and not on the exporter of one torch version. Needs the
`onnx` package, which only making models does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trendflow.contracts.errors import TrendFlowError

OPSET = 17
IR_VERSION = 8
# Added to scores that must not count before the softmax; infinity would turn a row without any token into NaN.
MASKED = float(np.finfo(np.float32).min)


@dataclass
class GraphBuilder:
    """Collects nodes and the weights they use."""

    weights: Mapping[str, np.ndarray]
    layer_norm_epsilon: float = 1e-5
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """One node, named like its only output; returns that name."""
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, values: Any, dtype: Any) -> str:
        """A tensor that no checkpoint holds."""
        self.initializers[name] = numpy_helper.from_array(np.asarray(values, dtype=dtype), name)
        return name

    def tensor(self, name: str) -> np.ndarray:
        """The values of a tensor of the checkpoint. Raises `weights_missing` when it is not there."""
        if name not in self.weights:
            raise TrendFlowError("weights_missing", f"The checkpoint lacks the tensor {name!r}.")
        return self.weights[name]

    def weight(self, name: str, *, transposed: bool = False) -> str:
        """A tensor of the checkpoint as a float32 constant of the graph. Raises `weights_missing`."""
        values = np.asarray(self.tensor(name), dtype=np.float32)
        self.initializers[name] = numpy_helper.from_array(
            np.ascontiguousarray(values.T if transposed else values), name
        )
        return name

    def dense(self, x: str, prefix: str) -> str:
        """`x · Wᵀ + b`; checkpoints store W as [out, in]."""
        product = self.node("MatMul", [x, self.weight(f"{prefix}.weight", transposed=True)], f"{prefix}.product")
        return self.node("Add", [product, self.weight(f"{prefix}.bias")], prefix)

    def layer_norm(self, x: str, prefix: str, output: str | None = None) -> str:
        scale, bias = self.weight(f"{prefix}.weight"), self.weight(f"{prefix}.bias")
        return self.node(
            "LayerNormalization", [x, scale, bias], output or prefix, axis=-1, epsilon=self.layer_norm_epsilon
        )

    def batch_norm(self, x: str, prefix: str, epsilon: float) -> str:
        """With the statistics of the training; tensors have torch's names."""
        statistics = [self.weight(f"{prefix}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        return self.node("BatchNormalization", [x, *statistics], prefix, epsilon=epsilon)

    def heads(self, x: str, order: list[int]) -> str:
        """[B, L, D] → [B, heads, L, D/heads], or with the last two axes swapped."""
        split = self.node("Reshape", [x, "split_heads"], f"{x}.split")
        return self.node("Transpose", [split], f"{x}.heads", perm=order)

    def attention(self, x: str, prefix: str, layers: tuple[str, str, str], score_mask: str | None) -> str:
        """Scaled dot-product attention of all heads, [B, L, D], before its output layer.

        `layers` are the dense layers of query, key and value. The constants `split_heads`, `join_heads` and
        `score_scale` must exist; `score_mask` is added to the scores.
        """
        query = self.heads(self.dense(x, layers[0]), [0, 2, 1, 3])
        key = self.heads(self.dense(x, layers[1]), [0, 2, 3, 1])
        value = self.heads(self.dense(x, layers[2]), [0, 2, 1, 3])
        scores = self.node("MatMul", [query, key], f"{prefix}.scores")
        scores = self.node("Mul", [scores, "score_scale"], f"{prefix}.scaled")
        if score_mask is not None:
            scores = self.node("Add", [scores, score_mask], f"{prefix}.masked")
        shares = self.node("Softmax", [scores], f"{prefix}.shares", axis=-1)
        mixed = self.node("MatMul", [shares, value], f"{prefix}.mixed")
        ordered = self.node("Transpose", [mixed], f"{prefix}.ordered", perm=[0, 2, 1, 3])
        return self.node("Reshape", [ordered, "join_heads"], f"{prefix}.joined")

    def model(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> onnx.ModelProto:
        """The finished model."""
        graph = helper.make_graph(self.nodes, name, list(inputs), list(outputs), list(self.initializers.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
