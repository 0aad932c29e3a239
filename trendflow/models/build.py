"""`trendflow models build`: puts weights that came with the program or with packages into the models directory.

No network is used. What is built is a pure function of pinned source bytes, and the result must have the digest the
catalogue pins, else it is thrown away.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.models.catalogue import Catalogue, CatalogueEntry, Source
from trendflow.models.store import WeightsStore

if TYPE_CHECKING:
    import onnx

MINILM_HEADS = 12
"""`num_attention_heads` of the checkpoint's configuration; the weights do not tell it."""

_READER_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Built:
    """What happened to one entry: `present` (was right already), `built`, or `skipped` (weights are pulled)."""

    entry: str
    version: str
    action: Literal["present", "built", "skipped"]
    bytes: int


def build_models(
    catalogue: Catalogue,
    models_dir: Path,
    names: Iterable[str] | None = None,
    progress: Callable[[Built], None] | None = None,
) -> list[Built]:
    """Build the named entries, or all. Entries that are in place are left alone.

    Raises `model_not_found` (unknown name), `dependency_missing` (package absent or of another version),
    `weights_missing` (source or result is not the pinned file).
    """
    store = WeightsStore(models_dir)
    chosen = list(catalogue) if names is None else [catalogue[name] for name in names]
    report = []
    for entry in chosen:
        row = _build(entry, store)
        report.append(row)
        if progress is not None:
            progress(row)
    return report


def _build(entry: CatalogueEntry, store: WeightsStore) -> Built:
    size = sum(file.bytes for file in entry.files)
    if store.entry_state(entry) == "present":
        return Built(entry.name, entry.version, "present", size)
    if entry.source.kind == "url":
        return Built(entry.name, entry.version, "skipped", size)
    model, *companions = entry.files
    source = entry.source
    data = {model: _RECIPES[source.recipe](_source_bytes(entry, source.member, source.sha256 or model.sha256))}
    data |= {file: _source_bytes(entry, source.companions[file.path], file.sha256) for file in companions}
    for file, content in data.items():
        with store.placing(entry, file) as temporary:
            temporary.write_bytes(content)
    return Built(entry.name, entry.version, "built", size)


def _source_bytes(entry: CatalogueEntry, member: str | None, expected: str) -> bytes:
    """The pinned file an entry starts from. `member` names it inside a package; a repository file has none."""
    source = entry.source
    path = _package_file(entry, source, member) if source.kind == "package" else data_path("models") / source.locator
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise TrendFlowError(
            "weights_missing", f"The source of {entry.name} is absent from {source.locator}.", entry=entry.name
        ) from exc
    if hashlib.sha256(data).hexdigest() != expected:
        raise TrendFlowError(
            "weights_missing",
            f"The source of {entry.name} in {source.locator} is not the file the catalogue pins.",
            entry=entry.name,
            expected_sha256=expected,
        )
    return data


def _package_file(entry: CatalogueEntry, source: Source, member: str | None) -> Path:
    """The member inside an installed package; the package is not imported, so none of its code runs."""
    try:
        distribution = importlib.metadata.distribution(source.locator)
    except importlib.metadata.PackageNotFoundError as exc:
        raise TrendFlowError(
            "dependency_missing",
            f"{entry.name} is built from the package {source.locator}=={source.revision}, which is not installed.",
            kind="python_package",
            package=source.locator,
        ) from exc
    if distribution.version != source.revision:
        raise TrendFlowError(
            "dependency_missing",
            f"{entry.name} is built from {source.locator}=={source.revision}, but {distribution.version} is installed.",
            kind="python_package",
            package=source.locator,
        )
    return Path(str(distribution.locate_file(member or "")))


def _copy(data: bytes) -> bytes:
    return data


def _centerface(data: bytes) -> bytes:
    from trendflow.models.onnx_graph import free_centerface, serialise

    return serialise(free_centerface(_parse(data)))


def _efficientnet_lite0(data: bytes) -> bytes:
    from trendflow.models.efficientnet_lite import feature_extractor
    from trendflow.models.onnx_graph import serialise

    return serialise(feature_extractor(read_checkpoint(data)))


def _musicnn_msd(data: bytes) -> bytes:
    from trendflow.models.onnx_graph import free_musicnn, serialise

    return serialise(free_musicnn(_parse(data)))


def _minilm_l6(data: bytes) -> bytes:
    from safetensors.numpy import load

    from trendflow.models.bert_encoder import bert_encoder
    from trendflow.models.onnx_graph import serialise

    return serialise(bert_encoder(load(data), heads=MINILM_HEADS))


def _parse(data: bytes) -> onnx.ModelProto:
    import onnx

    return onnx.load_model_from_string(data)


_RECIPES: dict[str, Callable[[bytes], bytes]] = {
    "copy": _copy,
    "centerface": _centerface,
    "efficientnet_lite0": _efficientnet_lite0,
    "minilm_l6": _minilm_l6,
    "musicnn_msd": _musicnn_msd,
}


def read_checkpoint(data: bytes) -> dict[str, np.ndarray]:
    """Tensors of a torch checkpoint, read in an isolated process.

    Raises `dependency_missing` without torch and `model_load_failed` when the checkpoint holds anything but tensors.
    """
    if importlib.util.find_spec("torch") is None:
        raise TrendFlowError(
            "dependency_missing", "Reading a torch checkpoint needs the package torch.", kind="python_package"
        )
    with tempfile.TemporaryDirectory(prefix="trendflow-checkpoint-") as folder:
        source, target = Path(folder) / "checkpoint.pth", Path(folder) / "arrays.npz"
        source.write_bytes(data)
        script = Path(__file__).with_name("read_checkpoint.py")
        # PATH-like variables keep the interpreter working; tokens and proxies of the parent stay behind.
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
        try:
            subprocess.run(
                [sys.executable, "-I", str(script), str(source), str(target)],
                env=kept,
                cwd=folder,
                check=True,
                capture_output=True,
                timeout=_READER_TIMEOUT_S,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
            raise TrendFlowError(
                "model_load_failed", "The checkpoint could not be read as plain tensors.", type=type(exc).__name__
            ) from exc
        with np.load(target, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
