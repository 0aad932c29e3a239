"""Moves a `frames_dir` between local scratch and the object store.

`video/metadata.json` is the marker of completeness: it is written last and removed first.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.media import documents
from trendflow.media.frames_dir import FramesDir, read_document, validate_metadata
from trendflow.storage.object_store import ObjectNotFound, ObjectStore

_PARALLEL = 4


def frames_key(run_path: str) -> str:
    """Folder of a run's frames in the store."""
    return f"frames_store/{run_path}"


def upload(store: ObjectStore, run_path: str, frames_dir: Path) -> None:
    """Store a complete local folder, batch by batch. An interrupted upload leaves nothing readable."""
    metadata = FramesDir.open(frames_dir).metadata
    audio = read_document(frames_dir, documents.AUDIO_METADATA)
    prefix = frames_key(run_path)
    store.delete(f"{prefix}/{documents.VIDEO_METADATA}")
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(lambda name: store.put_file(f"{prefix}/{name}", frames_dir / name), _payload(metadata, audio)))
    for name in documents.DOCUMENTS:
        store.put_file(f"{prefix}/{name}", frames_dir / name)


def download(store: ObjectStore, run_path: str, target: Path) -> None:
    """Fetch a run's frames to a local folder; every batch is checked against its digest.

    Raises `dependency_missing` when the stored folder is incomplete or gone, `artifact_validation_failed` when a batch
    differs from its digest.
    """
    shutil.rmtree(target, ignore_errors=True)
    found = {name: _document(store, run_path, name) for name in documents.DOCUMENTS}
    metadata = found[documents.VIDEO_METADATA]
    validate_metadata(metadata)
    prefix = frames_key(run_path)
    digests = {f"video/{batch['path']}": batch["sha256"] for batch in metadata["batches"]}
    for folder in ("video", "audio"):
        (target / folder).mkdir(parents=True, exist_ok=True)

    def fetch(name: str) -> None:
        store.get_file(f"{prefix}/{name}", target / name)
        if name in digests and _sha256(target / name) != digests[name]:
            raise TrendFlowError("artifact_validation_failed", "A stored frame batch differs from its digest.")

    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(fetch, _payload(metadata, found[documents.AUDIO_METADATA])))
    for name in documents.DOCUMENTS:
        documents.write_document(target / name, found[name])


def copy(store: ObjectStore, source_run: str, target_run: str, identity: RunIdentity, *, created_at: str) -> None:
    """Give another run its own copy of the frames, with its identity in every document.

    The copy expires with the original: how long media may be kept does not begin anew. Raises `dependency_missing`
    when the original is incomplete.
    """
    found = {name: _document(store, source_run, name) for name in documents.DOCUMENTS}
    source, target = frames_key(source_run), frames_key(target_run)
    store.delete(f"{target}/{documents.VIDEO_METADATA}")
    names = list(_payload(found[documents.VIDEO_METADATA], found[documents.AUDIO_METADATA]))
    with ThreadPoolExecutor(_PARALLEL) as pool:
        list(pool.map(lambda name: store.copy(f"{source}/{name}", f"{target}/{name}"), names))
    for name in documents.DOCUMENTS:
        store.put(f"{target}/{name}", documents.encode_document(documents.restamp(found[name], identity, created_at)))


def is_complete(store: ObjectStore, run_path: str) -> bool:
    """True when the marker is there and every file it names exists; see `is_expired` for whether they may be used."""
    try:
        metadata = _document(store, run_path, documents.VIDEO_METADATA)
        audio = _document(store, run_path, documents.AUDIO_METADATA)
    except TrendFlowError as exc:
        if exc.error_code == "dependency_missing":
            return False
        raise
    prefix = frames_key(run_path)
    stored = {info.key.removeprefix(f"{prefix}/") for info in store.list(prefix)}
    return stored.issuperset({*_payload(metadata, audio), *documents.DOCUMENTS})


def is_expired(expires_at: str, *, margin_sec: float = 0.0) -> bool:
    """True when frames may not be used any more `margin_sec` seconds from now, whether or not they are still there.

    `expires_at` is the `frames_dir.expires_at` of the run they belong to (UTC, ISO 8601).
    """
    return datetime.fromisoformat(expires_at) <= datetime.now(UTC) + timedelta(seconds=margin_sec)


def _payload(metadata: dict[str, Any], audio: dict[str, Any]) -> Iterator[str]:
    """Names of the files the documents describe."""
    yield from (f"video/{batch['path']}" for batch in metadata["batches"])
    if audio["audio_present"]:
        yield f"audio/{audio['audio_path']}"
        yield f"audio/{audio['audio_full_path']}"


def _document(store: ObjectStore, run_path: str, name: str) -> dict[str, Any]:
    try:
        return dict(json.loads(store.get(f"{frames_key(run_path)}/{name}")))
    except ObjectNotFound as exc:
        raise TrendFlowError(
            "dependency_missing", "The stored frames of this run are incomplete or gone.", kind="frames_dir"
        ) from exc
    except (ValueError, TypeError) as exc:
        raise TrendFlowError("artifact_validation_failed", f"The stored {name} is damaged.") from exc


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
