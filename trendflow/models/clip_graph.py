"""The two towers of CLIP (vision transformer variants) as ONNX graphs, built from the weights alone.

Architecture: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021),
section 2.4: pre-norm transformers with QuickGELU, `x · σ(1.702 x)`. Sizes are those of the weights; only the width of
an attention head is not in them. Tensors have the names of the published checkpoints. Needs the `onnx` package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from trendflow.models.graph_builder import MASKED, GraphBuilder

HEAD_WIDTH = 64
"""Of every published checkpoint, in both towers."""

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)
LAYER_NORM_EPSILON = 1e-5
QUICK_GELU_SLOPE = 1.702


class _Tower(GraphBuilder):
    """What both towers are made of."""

    @classmethod
    def of(cls, weights: Mapping[str, np.ndarray], prefix: str, width: int, head_width: int) -> _Tower:
        """`prefix` is that of the tower's blocks, `…resblocks`."""
        tower = cls({**weights, **_split_projections(weights, prefix)}, LAYER_NORM_EPSILON)
        tower.constant("slope", QUICK_GELU_SLOPE, np.float32)
        tower.constant("score_scale", 1 / math.sqrt(head_width), np.float32)
        tower.constant("split_heads", [0, 0, width // head_width, head_width], np.int64)
        tower.constant("join_heads", [0, 0, width], np.int64)
        return tower

    def quick_gelu(self, x: str) -> str:
        scaled = self.node("Mul", [x, "slope"], f"{x}.scaled")
        gate = self.node("Sigmoid", [scaled], f"{x}.gate")
        return self.node("Mul", [x, gate], f"{x}.gelu")

    def blocks(self, x: str, prefix: str, score_mask: str | None) -> str:
        """All residual attention blocks in turn; [B, L, D] → [B, L, D]."""
        for index in range(_depth(self.weights, prefix)):
            block = f"{prefix}.{index}"
            layers = (f"{block}.attn.query", f"{block}.attn.key", f"{block}.attn.value")
            mixed = self.attention(self.layer_norm(x, f"{block}.ln_1"), f"{block}.attn", layers, score_mask)
            attended = self.node("Add", [x, self.dense(mixed, f"{block}.attn.out_proj")], f"{block}.attended")
            inner = self.quick_gelu(self.dense(self.layer_norm(attended, f"{block}.ln_2"), f"{block}.mlp.c_fc"))
            x = self.node("Add", [attended, self.dense(inner, f"{block}.mlp.c_proj")], block)
        return x


def clip_image_tower(weights: Mapping[str, np.ndarray], head_width: int = HEAD_WIDTH) -> onnx.ModelProto:
    """`images` uint8 [B, S, S, 3] RGB → `embeddings` float32 [B, E], projected but not of unit length.

    Scaling to 0…1 and the colour normalisation are part of the graph. Raises `weights_missing`.
    """
    kernel = GraphBuilder(weights, LAYER_NORM_EPSILON).tensor("visual.conv1.weight")
    width, _, patch, _ = kernel.shape
    tower = _Tower.of(weights, "visual.transformer.resblocks", width, head_width)
    positions, projection = tower.tensor("visual.positional_embedding"), tower.tensor("visual.proj")
    side = patch * math.isqrt(len(positions) - 1)
    for name, values, dtype in (
        ("white", 255.0, np.float32),
        ("mean", PIXEL_MEAN, np.float32),
        ("std", PIXEL_STD, np.float32),
        ("class_token", tower.tensor("visual.class_embedding")[None, None], np.float32),
        ("flat_patches", [0, 0, -1], np.int64),
        ("one_token", [1, width], np.int64),
        ("first", 0, np.int64),
    ):
        tower.constant(name, values, dtype)
    x = tower.node("Cast", ["images"], "levels", to=TensorProto.FLOAT)
    x = tower.node("Div", [x, "white"], "colours")
    x = tower.node("Div", [tower.node("Sub", [x, "mean"], "centred"), "std"], "normalised")
    x = tower.node("Transpose", [x], "planes", perm=[0, 3, 1, 2])
    x = tower.node("Conv", [x, tower.weight("visual.conv1.weight")], "patch_map", strides=[patch, patch])
    x = tower.node("Transpose", [tower.node("Reshape", [x, "flat_patches"], "rows")], "patches", perm=[0, 2, 1])
    batch = tower.node("Shape", ["images"], "batch", start=0, end=1)
    shape = tower.node("Concat", [batch, "one_token"], "class_shape", axis=0)
    token = tower.node("Expand", ["class_token", shape], "class_tokens")
    x = tower.node("Concat", [token, x], "tokens", axis=1)
    x = tower.node("Add", [x, tower.weight("visual.positional_embedding")], "placed")
    x = tower.blocks(tower.layer_norm(x, "visual.ln_pre"), "visual.transformer.resblocks", None)
    x = tower.layer_norm(tower.node("Gather", [x, "first"], "pooled", axis=1), "visual.ln_post")
    tower.node("MatMul", [x, tower.weight("visual.proj")], "embeddings")
    return tower.model(
        "clip_image_tower",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", side, side, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["B", projection.shape[1]])],
    )


def clip_text_tower(weights: Mapping[str, np.ndarray], head_width: int = HEAD_WIDTH) -> onnx.ModelProto:
    """`input_ids` int64 [B, L] → `last_hidden` float32 [B, L, E], every position projected.

    L is the context of the checkpoint. The projection acts on each position alone, so choosing the end-of-text position
    after it, as the client does, is the same as choosing it before. Raises `weights_missing`.
    """
    positions = GraphBuilder(weights, LAYER_NORM_EPSILON).tensor("positional_embedding")
    context, width = positions.shape
    tower = _Tower.of(weights, "transformer.resblocks", width, head_width)
    # A token sees itself and what stands before it.
    tower.constant("causal", np.triu(np.full((context, context), MASKED, np.float32), 1), np.float32)
    x = tower.node("Gather", [tower.weight("token_embedding.weight"), "input_ids"], "words")
    x = tower.node("Add", [x, tower.weight("positional_embedding")], "placed")
    x = tower.blocks(x, "transformer.resblocks", "causal")
    projection = tower.weight("text_projection")
    tower.node("MatMul", [tower.layer_norm(x, "ln_final"), projection], "last_hidden")
    return tower.model(
        "clip_text_tower",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", context])],
        [
            helper.make_tensor_value_info(
                "last_hidden", TensorProto.FLOAT, ["B", context, tower.tensor("text_projection").shape[1]]
            )
        ],
    )


def _depth(weights: Mapping[str, np.ndarray], prefix: str) -> int:
    at = prefix.count(".") + 1
    return len({name.split(".")[at] for name in weights if name.startswith(f"{prefix}.")})


def _split_projections(weights: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The dense layers of query, key and value, which checkpoints store as one matrix [3D, D] and bias [3D]."""
    found: dict[str, np.ndarray] = {}
    for name, values in weights.items():
        stem, _, kind = name.rpartition("in_proj_")
        if name.startswith(f"{prefix}.") and kind in ("weight", "bias"):
            for part, piece in zip(("query", "key", "value"), np.split(values, 3), strict=True):
                found[f"{stem}{part}.{kind}"] = piece
    return found
