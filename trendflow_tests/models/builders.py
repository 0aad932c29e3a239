"""Small catalogue entries and models made on the spot, and a file that is none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from trendflow.models.catalogue import NO_LICENCE, Catalogue, CatalogueEntry, ModelFacts

UNLICENSED = {
    "licence_spdx": NO_LICENCE,
    "commercial_use": "forbidden",
    "attribution": "Random weights for tests; no trained model.",
}
"""Of an entry whose weights mean nothing."""


def entry_values(**overrides: Any) -> dict[str, Any]:
    """A small valid entry: y = f(x), float32 [B, 4]."""
    values: dict[str, Any] = {
        "name": "tiny",
        "version": "1.0",
        "roles": ["image_encoder"],
        "status": "candidate",
        "files": [{"path": "model.onnx", "sha256": "0" * 64, "bytes": 1}],
        "source": {"kind": "repository", "locator": "weights/tiny.onnx", "revision": "1.0"},
        "licence_spdx": "MIT",
        "licence_url": "https://example.org/licence",
        "commercial_use": "allowed",
        "attribution": "Tests.",
        "runtime": "inprocess",
        "engine": "onnx",
        "precision": "fp32",
        "device_policy": "cpu",
        "max_batch_size": 8,
        "deadline_ms": 1000,
        "warmup": 0,
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["B", 4], "layout": "NC"}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["B", 4], "layout": "NC"}],
        "preprocessing": {},
        "postprocessing": {},
        "gpu_memory_per_task_mb": 0,
        "cpu_rss_peak_mb": 1,
        "unit": "frame",
    }
    return values | overrides


def entry_for(data: bytes, **overrides: Any) -> CatalogueEntry:
    """A valid entry that pins `data` as its only file."""
    file = {"path": "model.onnx", "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    return CatalogueEntry.model_validate(entry_values(**{"files": [file], **overrides}))


def catalogue_of(*entries: CatalogueEntry) -> Catalogue:
    """A catalogue with the shipped roles and these entries."""
    return Catalogue({entry.name: entry for entry in entries}, Catalogue.load().roles)


def place(models_dir: Path, entry: CatalogueEntry, data: bytes) -> Path:
    """Put bytes where the store expects the first file of `entry`, without any check."""
    path = models_dir / entry.folder / entry.files[0].path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def onnx_bytes(
    nodes: Sequence[onnx.NodeProto],
    x_shape: Sequence[int | str] = ("B", 4),
    y_shape: Sequence[int | str] = ("B", 4),
    initializers: Sequence[onnx.TensorProto] = (),
) -> bytes:
    """A model x → y made of `nodes`."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(x_shape))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, list(y_shape))],
        list(initializers),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def random_encoder(model: ModelFacts, seed: int = 0, **overrides: Any) -> tuple[CatalogueEntry, bytes]:
    """An entry with the facts of `model` and a small ONNX file with random weights.

    The file maps the mean over the second last axis (time) linearly to the embedding: wiring and shapes are the real
    model's, the vectors mean nothing.
    """
    (x,), (y,) = model.inputs, model.outputs
    kept = [size for size in (*x.shape[1:-2], x.shape[-1]) if isinstance(size, int)]
    weights = np.random.default_rng(seed).normal(size=(int(np.prod(kept)), int(y.shape[-1]))).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", [x.name], ["mean"], axes=[len(x.shape) - 2], keepdims=0),
            helper.make_node("Flatten", ["mean"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "weights"], [y.name]),
        ],
        "random_weights",
        [helper.make_tensor_value_info(x.name, onnx.TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info(y.name, onnx.TensorProto.FLOAT, list(y.shape))],
        [numpy_helper.from_array(weights, "weights")],
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data = bytes(file.SerializeToString())
    return random_entry(model, data, **overrides), data


def random_entry(model: ModelFacts, data: bytes, **overrides: Any) -> CatalogueEntry:
    """An entry with the facts of `model` for a file with random weights, labelled as such in name and licence."""
    facts = model.model_dump(include=set(ModelFacts.model_fields), exclude_unset=True)
    labels: dict[str, Any] = {
        "name": f"{model.name}_random",
        **UNLICENSED,
    }
    if isinstance(model, CatalogueEntry):
        labels["max_batch_size"] = model.max_batch_size
    return entry_for(data, **{**facts, **labels, **overrides})


class Exploit:
    """A pickle that writes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return (open, (str(self.path), "w"))
