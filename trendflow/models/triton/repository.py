"""Writes Triton's model repository: `<entry>/config.pbtxt` and `<entry>/1/…`, a function of entries and weights."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format

from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError, unwritable
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.prompt_encoder import VOCABULARY
from trendflow.models.store import WeightsStore, file_sha256
from trendflow.models.text_encoder import TOKENIZER
from trendflow.models.triton.config import SERVED_VERSION, Backend, backend_for, model_config
from trendflow.models.triton.placement import Placement

CONFIG = "config.pbtxt"
_CODE = Path(__file__).with_name("backend_model.py")

_WEIGHTS = {"python": "model.onnx", "onnxruntime": "model.onnx", "tensorrt": "model.plan"}
"""The file name each backend looks for."""


@dataclass(frozen=True)
class ModelContents:
    """What the behaviour of a served model depends on: `config` is its `config.pbtxt`, `code` its `model.py` if any."""

    entry: CatalogueEntry
    backend: Backend
    config: str
    code: str


@dataclass(frozen=True)
class Repository:
    """A repository, written or planned. `digest` covers configurations, code and weights of all models."""

    path: Path
    contents: tuple[ModelContents, ...]

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(model.entry.name for model in self.contents)

    @property
    def digest(self) -> str:
        return digest_of(
            {
                model.entry.name: {
                    "config": model.config,
                    "code": model.code,
                    "weights": model.entry.weights_digest,
                }
                for model in self.contents
            }
        )


def write_repository(
    entries: Iterable[CatalogueEntry],
    store: WeightsStore,
    target: Path,
    *,
    containers: bool = False,
    threads: int = 0,
    placement: Placement | None = None,
) -> Repository:
    """Write the repository of these entries to `target`, replacing what is there.

    With `containers` the models run on the onnxruntime and TensorRT backends of NVIDIA's images, else on the Python
    backend of the server from the wheel; names, tensors and batching are the same. Weights are linked where the file
    system allows; `placement` says which GPUs execute what, by default all do. Raises `weights_missing`,
    `model_spec_invalid`, `dependency_missing` (an engine without a backend), `config_invalid` (a place that cannot be
    written) and `storage_unavailable`; what was there is then untouched.
    """
    planned = plan_repository(entries, store, target, containers=containers, threads=threads, placement=placement)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            fresh, previous = Path(scratch) / "repository", Path(scratch) / "previous"
            fresh.mkdir()
            for model in planned.contents:
                _write_model(model, store, fresh / model.entry.name)
            if target.exists():
                target.replace(previous)
            try:
                fresh.replace(target)
            except OSError:
                if previous.exists():
                    previous.replace(target)
                raise
    except OSError as exc:
        raise unwritable(exc, f"The model repository {target.name!r}") from exc
    return planned


def plan_repository(
    entries: Iterable[CatalogueEntry],
    store: WeightsStore,
    target: Path,
    *,
    containers: bool = False,
    threads: int = 0,
    placement: Placement | None = None,
) -> Repository:
    """The repository that `write_repository` would write, without writing it; raises what that raises of entries."""
    chosen = sorted({entry.name: entry for entry in entries}.values(), key=lambda entry: entry.name)
    contents = []
    for entry in chosen:
        backend = backend_for(entry, containers=containers)
        weights = store.verify(entry)[0]
        sha256 = file_sha256(weights) if entry.files[0].is_built_from_source else entry.files[0].sha256
        gpus = (placement or {}).get(entry.name, ())
        code = _CODE.read_text(encoding="utf-8") if backend == "python" else ""
        contents.append(ModelContents(entry, backend, config_text(entry, backend, threads, sha256, gpus), code))
    return Repository(target, tuple(contents))


def require_replaceable(target: Path) -> None:
    """Raises `config_invalid` unless `target` is absent, empty or a model repository: a mistyped folder is not ours."""
    try:
        if target.is_dir() and all((child / CONFIG).is_file() for child in target.iterdir()):
            return
        if not target.exists():
            return
    except OSError as exc:
        raise unwritable(exc, f"The model repository {target.name!r}") from exc
    raise TrendFlowError(
        "config_invalid",
        f"{target.name!r} holds something else than a model repository, which would be deleted; name another folder.",
    )


def config_text(
    entry: CatalogueEntry,
    backend: Backend,
    threads: int = 0,
    model_sha256: str | None = None,
    gpus: Sequence[int] = (),
) -> str:
    """`config.pbtxt` of an entry, see `model_config`; equal arguments give equal bytes."""
    return str(text_format.MessageToString(model_config(entry, backend, threads, model_sha256, gpus)))


def _write_model(model: ModelContents, store: WeightsStore, folder: Path) -> None:
    version = folder / SERVED_VERSION
    version.mkdir(parents=True)
    (folder / CONFIG).write_text(model.config, encoding="utf-8")
    for file in model.entry.files:
        if file.path in (TOKENIZER, VOCABULARY):
            continue  # text becomes numbers on the client's side
        name = _WEIGHTS[model.backend] if file is model.entry.files[0] else file.path
        (version / name).parent.mkdir(parents=True, exist_ok=True)
        _link(store.path(model.entry, file), version / name)
    if model.code:
        (version / "model.py").write_text(model.code, encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system cannot do that.

    The store replaces weights by renaming and never writes into them, so a link keeps the bytes that were verified.
    """
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
