"""Writes Triton's model repository: `<entry>/config.pbtxt` and `<entry>/1/…`, a function of entries and weights."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import as_typed
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.store import WeightsStore
from trendflow.models.text_encoder import TOKENIZER
from trendflow.models.triton.config import SERVED_VERSION, Backend, backend_for, model_config

CONFIG = "config.pbtxt"

_WEIGHTS = {"python": "model.onnx", "onnxruntime": "model.onnx", "tensorrt": "model.plan"}
"""The file name each backend looks for."""


@dataclass(frozen=True)
class Repository:
    """A written repository. `digest` covers configurations, code and weights of all models."""

    path: Path
    models: tuple[str, ...]
    digest: str


def write_repository(
    entries: Iterable[CatalogueEntry],
    store: WeightsStore,
    target: Path,
    *,
    containers: bool = False,
    threads: int = 0,
) -> Repository:
    """Write the repository of these entries to `target`, replacing what is there.

    With `containers` the models run on the onnxruntime and TensorRT backends of NVIDIA's images, else on the Python
    backend of the server from the wheel; names, tensors and batching are the same. Weights are linked where the file
    system allows. Raises `weights_missing`, `model_spec_invalid`, `dependency_missing` (an engine without a backend)
    and `storage_unavailable`.
    """
    chosen = sorted({entry.name: entry for entry in entries}.values(), key=lambda entry: entry.name)
    contents = {}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            fresh = Path(scratch) / "repository"
            fresh.mkdir()
            for entry in chosen:
                backend = backend_for(entry, containers=containers)
                contents[entry.name] = _write_model(entry, backend, store, fresh / entry.name, threads)
            if target.exists():
                target.replace(Path(scratch) / "previous")
            fresh.replace(target)
    except OSError as exc:
        raise as_typed(exc) from exc
    return Repository(target, tuple(contents), digest_of(contents))


def config_text(entry: CatalogueEntry, backend: Backend, threads: int = 0) -> str:
    """`config.pbtxt` of an entry; equal entries give equal bytes."""
    return str(text_format.MessageToString(model_config(entry, backend, threads)))


def _write_model(
    entry: CatalogueEntry, backend: Backend, store: WeightsStore, folder: Path, threads: int
) -> dict[str, str]:
    """Write one model; returns what its behaviour depends on."""
    version = folder / SERVED_VERSION
    version.mkdir(parents=True)
    config = config_text(entry, backend, threads)
    (folder / CONFIG).write_text(config, encoding="utf-8")
    for file, path in zip(entry.files, store.verify(entry), strict=True):
        if file.path == TOKENIZER:
            continue  # text becomes numbers on the client's side
        name = _WEIGHTS[backend] if file is entry.files[0] else file.path
        (version / name).parent.mkdir(parents=True, exist_ok=True)
        _link(path, version / name)
    code = Path(__file__).with_name("backend_model.py").read_text(encoding="utf-8") if backend == "python" else ""
    if code:
        (version / "model.py").write_text(code, encoding="utf-8")
    return {"config": config, "code": code, "weights": entry.weights_digest}


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system cannot do that.

    The store replaces weights by renaming and never writes into them, so a link keeps the bytes that were verified.
    """
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
