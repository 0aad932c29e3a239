"""A BERT encoder as an ONNX graph, built from the weights alone.

Like the image encoder it is written node by node instead of traced, so its bytes, and with them the pinned digest,
depend on the checkpoint only and not on the exporter of one torch version. Architecture: Devlin et al., "BERT:
Pre-training of Deep Bidirectional Transformers" (NAACL 2019), without the pooler and without dropout. Needs the
`onnx` package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from trendflow.models.graph_builder import MASKED, GraphBuilder

LAYER_NORM_EPSILON = 1e-12


class _Builder(GraphBuilder):
    """The layers of BERT."""

    def gelu(self, x: str) -> str:
        """Exact GELU, `x/2 · (1 + erf(x/√2))`."""
        scaled = self.node("Mul", [x, "inverse_sqrt_2"], f"{x}.scaled")
        erf = self.node("Erf", [scaled], f"{x}.erf")
        shifted = self.node("Add", [erf, "one"], f"{x}.shifted")
        gated = self.node("Mul", [x, shifted], f"{x}.gated")
        return self.node("Mul", [gated, "half"], f"{x}.gelu")

    def attended(self, x: str, prefix: str) -> str:
        layers = (f"{prefix}.self.query", f"{prefix}.self.key", f"{prefix}.self.value")
        out = self.dense(self.attention(x, prefix, layers, "score_mask"), f"{prefix}.output.dense")
        return self.layer_norm(self.node("Add", [out, x], f"{prefix}.sum"), f"{prefix}.output.LayerNorm")

    def layer(self, x: str, prefix: str, output: str | None) -> str:
        attended = self.attended(x, f"{prefix}.attention")
        inner = self.gelu(self.dense(attended, f"{prefix}.intermediate.dense"))
        out = self.dense(inner, f"{prefix}.output.dense")
        return self.layer_norm(self.node("Add", [out, attended], f"{prefix}.sum"), f"{prefix}.output.LayerNorm", output)

    def embeddings(self) -> str:
        """Sum of word, position and segment embeddings, normalised. There is one segment."""
        words = self.node("Gather", [self.weight("embeddings.word_embeddings.weight"), "input_ids"], "words")
        shape = self.node("Shape", ["input_ids"], "shape", start=1, end=2)
        positions = self.weight("embeddings.position_embeddings.weight")
        used = self.node("Slice", [positions, "first", shape], "positions")
        segment = self.constant("segment", self.tensor("embeddings.token_type_embeddings.weight")[0], np.float32)
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
    builder = _Builder(weights, LAYER_NORM_EPSILON)
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
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "L"]) for name in ("input_ids", "attention_mask")
    ]
    hidden = helper.make_tensor_value_info("last_hidden", TensorProto.FLOAT, ["B", "L", width])
    return builder.model("bert_encoder", ids, [hidden])
