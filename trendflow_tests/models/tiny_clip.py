"""A CLIP model of the published architecture with few, random weights: transformers' own, and ours made from it."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from trendflow.contracts.package_data import data_path
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.clip_graph import clip_image_tower, clip_text_tower
from trendflow.models.onnx_graph import serialise
from trendflow.models.onnx_runtime import OnnxHandle
from trendflow.models.prompt_encoder import VOCABULARY, PromptEncoderHandle
from trendflow_tests.models.builders import UNLICENSED, entry_for

HEAD_WIDTH = 8
SIDE = 64
CONTEXT = 77
WIDTH = 24
MERGES = 300
VOCABULARY_SIZE = 2 * 256 + MERGES + 2


def vocabulary(merges: int = MERGES) -> bytes:
    """The header and the first merges of the shipped vocabulary."""
    shipped = gzip.decompress((data_path("models") / "weights" / "clip_bpe_vocab_16e6.txt.gz").read_bytes())
    return gzip.compress(b"\n".join(shipped.split(b"\n")[: merges + 1]), mtime=0)


def random_clip(seed: int = 0, head_width: int = HEAD_WIDTH) -> Any:
    """`transformers.CLIPModel`. Weights are larger than at the start of a training, so that inputs tell apart."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config={
            "vocab_size": VOCABULARY_SIZE,
            "hidden_size": 4 * head_width,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": CONTEXT,
            "hidden_act": "quick_gelu",
            "eos_token_id": VOCABULARY_SIZE - 1,
            "bos_token_id": VOCABULARY_SIZE - 2,
            "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 5 * head_width,
            "intermediate_size": 160,
            "num_hidden_layers": 3,
            "num_attention_heads": 5,
            "image_size": SIDE,
            "patch_size": 16,
            "hidden_act": "quick_gelu",
        },
        projection_dim=WIDTH,
    )
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6)
    return model


def published_names(model: Any) -> dict[str, np.ndarray]:
    """The tensors of a `transformers.CLIPModel` by the names, and in the layout, of the published checkpoints."""
    source = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    renamed = {
        "logit_scale": source["logit_scale"],
        "token_embedding.weight": source["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": source["text_model.embeddings.position_embedding.weight"],
        "text_projection": source["text_projection.weight"].T,
        "visual.class_embedding": source["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": source["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": source["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": source["visual_projection.weight"].T,
    }
    layers = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    for tower, prefix in (("text_model", "transformer"), ("vision_model", "visual.transformer")):
        for index in range(len(getattr(model, tower).encoder.layers)):
            ours, theirs = f"{prefix}.resblocks.{index}", f"{tower}.encoder.layers.{index}"
            for kind in ("weight", "bias"):
                parts = [source[f"{theirs}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
                renamed[f"{ours}.attn.in_proj_{kind}"] = np.concatenate(parts)
            layers |= {
                f"{ours}.attn.out_proj": f"{theirs}.self_attn.out_proj",
                f"{ours}.ln_1": f"{theirs}.layer_norm1",
                f"{ours}.ln_2": f"{theirs}.layer_norm2",
                f"{ours}.mlp.c_fc": f"{theirs}.mlp.fc1",
                f"{ours}.mlp.c_proj": f"{theirs}.mlp.fc2",
            }
    for ours, theirs in layers.items():
        renamed |= {f"{ours}.{kind}": source[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
    return renamed


def image_tower(folder: Path, weights: dict[str, np.ndarray], **changes: Any) -> OnnxHandle:
    """Our graph of the image tower, loaded, under the facts of the catalogue's entry."""
    facts = Catalogue.load()["clip_vit_b32_image"]
    data = serialise(clip_image_tower(weights, HEAD_WIDTH))
    preprocessing = {**facts.preprocessing, "resize_shorter": SIDE, "width": SIDE, "height": SIDE}
    entry = entry_for(
        data,
        name="random_weights_clip_image",
        roles=["image_encoder"],
        inputs=[facts.inputs[0].model_dump() | {"shape": ["B", SIDE, SIDE, 3]}],
        outputs=[facts.outputs[0].model_dump() | {"shape": ["B", WIDTH]}],
        embedding_dim=WIDTH,
        preprocessing=preprocessing,
        postprocessing=facts.postprocessing,
        checkpoint=_digest(weights),
        max_batch_size=facts.max_batch_size,
        **UNLICENSED,
    ).model_copy(update=changes)
    path = folder / "clip_image.onnx"
    path.write_bytes(data)
    return OnnxHandle.load(entry, path)


def text_entry(weights: dict[str, np.ndarray], data: bytes) -> CatalogueEntry:
    facts = Catalogue.load()["clip_vit_b32_text"]
    return entry_for(
        data,
        name="random_weights_clip_text",
        roles=["prompt_encoder"],
        inputs=[facts.inputs[0].model_dump() | {"value_range": [0, VOCABULARY_SIZE - 1]}],
        outputs=[facts.outputs[0].model_dump() | {"shape": ["B", CONTEXT, WIDTH]}],
        embedding_dim=WIDTH,
        preprocessing={**facts.preprocessing, "vocabulary_size": VOCABULARY_SIZE},
        postprocessing={**facts.postprocessing, "logit_scale": float(np.exp(weights["logit_scale"]))},
        checkpoint=_digest(weights),
        max_batch_size=facts.max_batch_size,
        **UNLICENSED,
    )


def text_tower(folder: Path, weights: dict[str, np.ndarray], **changes: Any) -> PromptEncoderHandle:
    """Our graph of the text tower with its tokenizer, loaded, under the facts of the catalogue's entry."""
    data = serialise(clip_text_tower(weights, HEAD_WIDTH))
    (folder / "clip_text.onnx").write_bytes(data)
    (folder / VOCABULARY).write_bytes(vocabulary())
    entry = text_entry(weights, data).model_copy(update=changes)
    return PromptEncoderHandle.load(OnnxHandle.load(entry, folder / "clip_text.onnx"), folder / VOCABULARY)


def _digest(weights: dict[str, np.ndarray]) -> str:
    hasher = hashlib.sha256()
    for name in sorted(weights):
        hasher.update(name.encode() + np.ascontiguousarray(weights[name]).tobytes())
    return hasher.hexdigest()
