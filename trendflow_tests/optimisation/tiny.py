"""A small image encoder with RANDOM weights and SYNTHETIC frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trendflow.components.base import VideoInfo
from trendflow.models.catalogue import CatalogueEntry
from trendflow.optimisation.clips import Clip
from trendflow_tests.models.builders import entry_for, place

SIDE, WIDTH = 32, 24


class Frames:
    """SYNTHETIC: smooth colour fields that drift from frame to frame; implements `FrameReader`."""

    def __init__(self, seed: int, count: int) -> None:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 255, (count + 8, 4, 4, 3)).astype(np.float64)
        smooth = np.stack([coarse[k : k + 8].mean(axis=0) for k in range(count)])
        self._frames = np.kron(smooth, np.ones((1, 10, 10, 1))).astype(np.uint8)

    def read(self, union_indices: np.ndarray) -> np.ndarray:
        return self._frames[union_indices]


def clips(videos: int = 3, count: int = 170) -> list[Clip]:
    return [
        Clip(
            name=f"synthetic_{seed}.mp4",
            sha256=f"{seed:064x}",
            frames=Frames(seed, count),
            indices=np.arange(count, dtype=np.int32),
            times_s=np.arange(count) / 10,
            video=VideoInfo(count / 10, 40, 40, 10.0, 10.0),
        )
        for seed in range(videos)
    ]


def inputs(count: int = 12) -> list[dict[str, np.ndarray]]:
    """Batches of one frame."""
    values = np.random.default_rng(1).uniform(-2, 2, (count, 1, 3, SIDE, SIDE)).astype(np.float32)
    return [{"images": value} for value in values]


def encoder_bytes(seed: int = 0, gain: float = 1.0) -> bytes:
    """RANDOM weights: images [B,3,32,32] → three convolutions → embeddings [B,24].

    `gain` is what the first layer multiplies with and the second divides by.
    """
    rng = np.random.default_rng(seed)
    nodes, weights, x, channels = [], [], "images", 3
    for layer, (width, factor) in enumerate(((16, gain), (16, 1 / gain), (WIDTH, 1.0))):
        kernel = (
            np.float32(factor)
            * rng.normal(size=(width, channels, 3, 3)).astype(np.float32)
            / np.sqrt(9 * channels, dtype=np.float32)
        )
        weights.append(numpy_helper.from_array(kernel, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [x, f"w{layer}"], [f"c{layer}"], f"conv{layer}", pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"], f"relu{layer}"))
        x, channels = f"r{layer}", width
    nodes.append(helper.make_node("ReduceMean", [x], ["embeddings"], "pool", axes=[2, 3], keepdims=0))
    graph = helper.make_graph(
        nodes,
        "random_weights",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["B", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("embeddings", onnx.TensorProto.FLOAT, ["B", WIDTH])],
        weights,
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


def placed_encoder(models_dir: Path, gain: float = 1.0) -> CatalogueEntry:
    data = encoder_bytes(gain=gain)
    entry = entry_for(
        data,
        name="tiny_random",
        inputs=[{"name": "images", "dtype": "float32", "shape": ["B", 3, SIDE, SIDE], "layout": "NCHW"}],
        outputs=[{"name": "embeddings", "dtype": "float32", "shape": ["B", WIDTH], "layout": "NC"}],
        embedding_dim=WIDTH,
        preprocessing={
            "geometry": "stretch",
            "width": SIDE,
            "height": SIDE,
            "interpolation": "bilinear",
            "color_order": "RGB",
            "mean": [127.0] * 3,
            "std": [64.0] * 3,
        },
    )
    place(models_dir, entry, data)
    return entry
