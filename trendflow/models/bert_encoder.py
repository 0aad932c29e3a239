"""A BERT encoder as an ONNX graph, built from the weights alone.

Like the image encoder it is written node by node instead of traced, so its bytes, and with them the pinned digest,
depend on the checkpoint only and not on the exporter of one torch version. Architecture: Devlin et al., "BERT:
Pre-training of Deep Bidirectional Transformers" (NAACL 2019), without the pooler and without dropout. Needs the
`onnx` package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trendflow.contracts.errors import TrendFlowError

OPSET = 17
IR_VERSION = 8
LAYER_NORM_EPSILON = 1e-12
# Added to the scores of padding before the softmax; infinity would turn a row without any token into NaN.
MASKED = float(np.finfo(np.float32).min)


@dataclass
class _Builder:
    """Collects nodes and the weights they use."""

    weights: Mapping[str, np.ndarray]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, values: Any, dtype: Any) -> str:
        self.initializers[name] = numpy_helper.from_array(np.asarray(values, dtype=dtype), name)
        return name

    def weight(self, name: str, *, transposed: bool = False) -> str:
        if name not in self.weights:
            raise TrendFlowError("weights_missing", f"The checkpoint lacks the tensor {name!r}.")
        values = np.asarray(self.weights[name], dtype=np.float32)
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
        return self.node("LayerNormalization", [x, scale, bias], output or prefix, axis=-1, epsilon=LAYER_NORM_EPSILON)

    def gelu(self, x: str) -> str:
        """Exact GELU, `x/2 · (1 + erf(x/√2))`."""
        scaled = self.node("Mul", [x, "inverse_sqrt_2"], f"{x}.scaled")
        erf = self.node("Erf", [scaled], f"{x}.erf")
        shifted = self.node("Add", [erf, "one"], f"{x}.shifted")
        gated = self.node("Mul", [x, shifted], f"{x}.gated")
        return self.node("Mul", [gated, "half"], f"{x}.gelu")

    def heads(self, x: str, order: list[int]) -> str:
        """[B, L, D] → [B, heads, L, D/heads], or with the last two axes swapped."""
        split = self.node("Reshape", [x, "split_heads"], f"{x}.split")
        return self.node("Transpose", [split], f"{x}.heads", perm=order)

    def attention(self, x: str, prefix: str) -> str:
        query = self.heads(self.dense(x, f"{prefix}.self.query"), [0, 2, 1, 3])
        key = self.heads(self.dense(x, f"{prefix}.self.key"), [0, 2, 3, 1])
        value = self.heads(self.dense(x, f"{prefix}.self.value"), [0, 2, 1, 3])
        product = self.node("MatMul", [query, key], f"{prefix}.scores")
        scaled = self.node("Mul", [product, "score_scale"], f"{prefix}.scaled")
        masked = self.node("Add", [scaled, "score_mask"], f"{prefix}.masked")
        shares = self.node("Softmax", [masked], f"{prefix}.shares", axis=-1)
        mixed = self.node("MatMul", [shares, value], f"{prefix}.mixed")
        ordered = self.node("Transpose", [mixed], f"{prefix}.ordered", perm=[0, 2, 1, 3])
        joined = self.node("Reshape", [ordered, "join_heads"], f"{prefix}.joined")
        out = self.dense(joined, f"{prefix}.output.dense")
        return self.layer_norm(self.node("Add", [out, x], f"{prefix}.sum"), f"{prefix}.output.LayerNorm")

    def layer(self, x: str, prefix: str, output: str | None) -> str:
        attended = self.attention(x, f"{prefix}.attention")
        inner = self.gelu(self.dense(attended, f"{prefix}.intermediate.dense"))
        out = self.dense(inner, f"{prefix}.output.dense")
        return self.layer_norm(self.node("Add", [out, attended], f"{prefix}.sum"), f"{prefix}.output.LayerNorm", output)

    def embeddings(self) -> str:
        """Sum of word, position and segment embeddings, normalised. There is one segment."""
        words = self.node("Gather", [self.weight("embeddings.word_embeddings.weight"), "input_ids"], "words")
        shape = self.node("Shape", ["input_ids"], "shape", start=1, end=2)
        positions = self.weight("embeddings.position_embeddings.weight")
        used = self.node("Slice", [positions, "first", shape], "positions")
        segment = self.constant("segment", self.weights["embeddings.token_type_embeddings.weight"][0], np.float32)
        placed = self.node("Add", [words, used], "placed")
        return self.layer_norm(self.node("Add", [placed, segment], "embedded"), "embeddings.LayerNorm")

    def score_mask(self) -> None:
        """[B, 1, 1, L]: 0 for tokens, the lowest float for padding."""
        mask = self.node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
        inverse = self.node("Sub", ["one", mask], "inverse_mask")
        lowest = self.node("Mul", [inverse, "masked"], "lowest")
        self.node("Unsqueeze", [lowest, "mask_axes"], "score_mask")


def bert_encoder(weights: Mapping[str, np.ndarray], heads: int) -> onnx.ModelProto:
    """`input_ids`, `attention_mask` int64 [B, L] → `last_hidden` float32 [B, L, D], the last layer.

    `weights` are the tensors of the checkpoint by their names in `transformers.BertModel`; depth and width are
    theirs, the number of attention `heads` is not. Raises `weights_missing` when a tensor is absent.
    """
    builder = _Builder(weights)
    builder.weight("embeddings.word_embeddings.weight")
    width = weights["embeddings.word_embeddings.weight"].shape[1]
    for name, values, dtype in (
        ("one", 1.0, np.float32),
        ("half", 0.5, np.float32),
        ("inverse_sqrt_2", math.sqrt(0.5), np.float32),
        ("score_scale", 1 / math.sqrt(width // heads), np.float32),
        ("masked", MASKED, np.float32),
        ("first", [0], np.int64),
        ("mask_axes", [1, 2], np.int64),
        ("split_heads", [0, 0, heads, width // heads], np.int64),
        ("join_heads", [0, 0, width], np.int64),
    ):
        builder.constant(name, values, dtype)
    builder.score_mask()
    x = builder.embeddings()
    depth = len({name.split(".")[2] for name in weights if name.startswith("encoder.layer.")})
    for index in range(depth):
        last = "last_hidden" if index == depth - 1 else None
        x = builder.layer(x, f"encoder.layer.{index}", last)
    graph = helper.make_graph(
        builder.nodes,
        "bert_encoder",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "L"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("last_hidden", TensorProto.FLOAT, ["B", "L", width])],
        list(builder.initializers.values()),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
