"""The per-run layout of `result_store/`: one folder, one manifest, one NPZ per artifact.

An artifact exists for the system only when a manifest row names it with its sha256. Writers therefore store the
artifact first and the row afterwards; a crash in between leaves an orphan, which is harmless.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trendflow.contracts.canonical import content_digest, sha256_hex, utc_now
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import IDENTITY_KEYS, validate_run_id, validate_video_id
from trendflow.contracts.manifest import MANIFEST_SCHEMA_VERSION, Manifest, artifact_path, find_row, retract_row
from trendflow.contracts.vocab import PLATFORM_IDS, RETENTION_CLASSES
from trendflow.storage import npz
from trendflow.storage.byte_source import RangeSource
from trendflow.storage.object_store import ObjectNotFound, ObjectStore
from trendflow.storage.retry import ContentionPolicy, exhausted
from trendflow.storage.run_validation import ArtifactCheck, Finding, validate_run
from trendflow.storage.zip_layout import Buffer

ROOT = "result_store"
MANIFEST_NAME = "manifest.json"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
# What two artifacts of one run have in common when they hold the same result.
_SAME_RESULT = ("idempotency_key", "schema_version", "status", "empty_reason", "content_digest")


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact as read back. `sha256` is None when only some members were fetched, by range."""

    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]
    size: int
    sha256: str | None


class ResultStore:
    """Manifests and artifacts of all runs. A `run_path` is `<platform_id>/<video_id>/<run_id>`."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        limits: npz.NpzLimits = npz.DEFAULT_LIMITS,
        contention: ContentionPolicy | None = None,
    ) -> None:
        self._store = store
        self._limits = limits
        self._contention = contention or ContentionPolicy()

    def run_folder(self, run_path: str) -> str:
        """Key of the run's folder in the object store."""
        platform_id, _, rest = run_path.partition("/")
        video_id, _, run_id = rest.partition("/")
        validate_video_id(platform_id, video_id)
        validate_run_id(run_id)
        return f"{ROOT}/{run_path}"

    def create_manifest(self, manifest: Mapping[str, Any]) -> bool:
        """Store the first manifest of a run. False when the run has one already, which is then left untouched."""
        run = manifest["run"]
        key = self._manifest_key(f"{run['platform_id']}/{run['video_id']}/{run['run_id']}")
        return self._store.put_if_absent(key, _manifest_bytes(manifest))

    def read_manifest(self, run_path: str) -> Manifest | None:
        """The manifest, or None when the run does not exist. Raises `artifact_validation_failed` when it is broken."""
        try:
            return _parse_manifest(self._store.get(self._manifest_key(run_path)))
        except ObjectNotFound:
            return None

    def update_manifest(self, run_path: str, change: Callable[[Manifest], Manifest]) -> Manifest:
        """Apply `change` by compare-and-swap and return the stored result.

        `change` may run several times, each time on a newer document, so it must be pure and idempotent. A change that
        alters nothing is not written. Raises `ObjectNotFound` without a manifest and `storage_unavailable` when other
        writers kept winning for 30 s.
        """
        key = self._manifest_key(run_path)
        for _ in self._contention.attempts():
            data, etag = self._store.get_with_etag(key)
            current = _parse_manifest(data)
            changed = change(_parse_manifest(data))
            _require_same_identity(current, changed)
            if changed == current:
                return current
            changed = {**changed, "run": {**changed["run"], "updated_at": utc_now()}}
            if self._store.put_if_match(key, _manifest_bytes(changed), etag):
                return changed
        raise exhausted(
            TrendFlowError(
                "storage_unavailable", "The manifest stayed contended for too long.", limit_sec=self._contention.limit
            )
        )

    def write_artifact(
        self,
        run_path: str,
        component: str,
        stem: str,
        arrays: Mapping[str, np.ndarray],
        meta: Mapping[str, Any],
        *,
        retention_class: str = "derived",
    ) -> dict[str, Any]:
        """Store one NPZ and return its artifact row for the manifest.

        The meta must be complete and belong to this run and component (`artifact_validation_failed`). Replacing an
        artifact that the manifest already names retracts its row first: a crash then leaves an unfinished component,
        never a row that contradicts its file.
        """
        _require_owner(run_path, component, meta)
        parts = npz.encode_parts(arrays, meta, self._limits)
        row = _artifact_row(artifact_path(component, stem), "npz", parts, retention_class)
        row.update(content_digest=meta["content_digest"], schema_version=meta["schema_version"])
        return self._put_artifact(run_path, component, row, parts)

    def write_or_adopt(
        self, run_path: str, component: str, stem: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Store one NPZ unless the run holds the same result already. Returns the artifact row and meta that stand.

        Two attempts at one run compute the same result into different bytes, because the meta says when. Were the
        second to replace the first's file between its writing and its row, the manifest would contradict the file.
        Errors as in `write_artifact`.
        """
        _require_owner(run_path, component, meta)
        path = artifact_path(component, stem)
        parts = npz.encode_parts(arrays, meta, self._limits)
        if self._store.put_if_absent(self._artifact_key(run_path, path), parts):
            row = _artifact_row(path, "npz", parts, "derived")
            row.update(content_digest=meta["content_digest"], schema_version=meta["schema_version"])
            return row, dict(meta)
        return self._same_result(run_path, component, stem, meta) or (
            self.write_artifact(run_path, component, stem, arrays, meta),
            dict(meta),
        )

    def write_array(
        self,
        run_path: str,
        component: str,
        name: str,
        array: np.ndarray,
        schema_version: str,
        *,
        retention_class: str = "derived",
    ) -> dict[str, Any]:
        """Store one declared large sub-artifact as a bare `.npy`; write it before the main artifact."""
        parts = npz.encode_array(array, name)
        row = _artifact_row(artifact_path(component, name, "npy"), "npy", parts, retention_class)
        row.update(
            content_digest=content_digest(component, schema_version, "ok", None, {name: array}),
            schema_version=schema_version,
        )
        return self._put_artifact(run_path, component, row, parts)

    def read_artifact(
        self,
        run_path: str,
        component: str,
        stem: str | None = None,
        *,
        names: Iterable[str] | None = None,
        expected_sha256: str | None = None,
    ) -> StoredArtifact:
        """Read an artifact (`stem` defaults to the component's main one).

        With `names` only these members and the meta are fetched, by range, unless `expected_sha256` demands the whole
        file. Raises `ObjectNotFound`, or `artifact_validation_failed` for a broken or unexpected file.
        """
        key = self._artifact_key(run_path, artifact_path(component, stem or component))
        path = self._store.local_path(key)
        if path is not None:
            size = self._store.head(key).size
            sha256 = None
            if names is None or expected_sha256 is not None:
                with path.open("rb") as file:
                    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                _require_sha256(sha256, expected_sha256, component)
            return StoredArtifact(*npz.decode(path, names, self._limits), size=size, sha256=sha256)
        if names is not None and expected_sha256 is None:
            size = self._store.head(key).size
            source = RangeSource(size, lambda start, length: self._store.get_range(key, start, length))
            return StoredArtifact(*npz.decode(source, names, self._limits), size=size, sha256=None)
        data = self._store.get(key)
        sha256 = sha256_hex(data)
        _require_sha256(sha256, expected_sha256, component)
        return StoredArtifact(*npz.decode(data, names, self._limits), size=len(data), sha256=sha256)

    def read_array(self, run_path: str, component: str, name: str, *, expected_sha256: str | None = None) -> np.ndarray:
        """Read a sub-artifact written by `write_array`; errors as in `read_artifact`."""
        data = self._store.get(self._artifact_key(run_path, artifact_path(component, name, "npy")))
        _require_sha256(sha256_hex(data), expected_sha256, component)
        return npz.decode_array(data, name, self._limits)

    def manifests(self, platform_id: str, video_id: str) -> Iterator[Manifest]:
        """Manifests of all runs of a video, newest first."""
        validate_video_id(platform_id, video_id)
        found = (self.read_manifest(f"{platform_id}/{video_id}/{run}") for run in self._runs_of(platform_id, video_id))
        present = [manifest for manifest in found if manifest is not None]
        yield from sorted(present, key=lambda manifest: manifest["run"]["created_at"], reverse=True)

    def run_paths(self) -> Iterator[str]:
        """Paths of all runs that have a manifest, sorted."""
        for platform_id, video_id in self.videos():
            for run_id in self._runs_of(platform_id, video_id):
                run_path = f"{platform_id}/{video_id}/{run_id}"
                if self._store.exists(self._manifest_key(run_path)):
                    yield run_path

    def videos(self) -> Iterator[tuple[str, str]]:
        """Platform and id of every video that has a run folder, sorted."""
        for platform_id in sorted(PLATFORM_IDS):
            for video_id in self._store.folders(f"{ROOT}/{platform_id}"):
                yield platform_id, video_id

    def orphans(self, run_path: str) -> list[str]:
        """Objects of the run folder, relative to it, that no manifest row names."""
        folder = self.run_folder(run_path)
        manifest = self.read_manifest(run_path)
        named = {MANIFEST_NAME}
        for row in manifest["components"] if manifest else ():
            named.update(artifact["path"] for artifact in row["artifacts"])
        paths = (info.key.removeprefix(f"{folder}/") for info in self._store.list(folder))
        return [path for path in paths if path not in named]

    def validate_run(self, run_path: str, check: ArtifactCheck | None = None) -> list[Finding]:
        """Hold everything stored for a run against its manifest; see `run_validation.validate_run`."""
        return validate_run(self, run_path, check)

    def _runs_of(self, platform_id: str, video_id: str) -> tuple[str, ...]:
        return self._store.folders(f"{ROOT}/{platform_id}/{video_id}")

    def _manifest_key(self, run_path: str) -> str:
        return f"{self.run_folder(run_path)}/{MANIFEST_NAME}"

    def _artifact_key(self, run_path: str, path: str) -> str:
        component, _, file_name = path.partition("/")
        if not _NAME.match(component) or not _NAME.match(file_name.rpartition(".")[0]):
            raise TrendFlowError("artifact_validation_failed", f"{path!r} is not an artifact path.")
        return f"{self.run_folder(run_path)}/{path}"

    def _same_result(
        self, run_path: str, component: str, stem: str, meta: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The stored artifact's row and meta if it is whole and holds the result that `meta` describes."""
        try:
            stored = self.read_artifact(run_path, component, stem)
            standing = stored.meta
            _require_owner(run_path, component, standing)
            same = meta["status"] != "error" and all(standing.get(key) == meta[key] for key in _SAME_RESULT)
        except TrendFlowError as exc:
            if exc.error_class == "transient":
                raise
            return None  # what stands there is damaged or was removed meanwhile
        digest = content_digest(component, meta["schema_version"], meta["status"], meta["empty_reason"], stored.arrays)
        if not same or digest != meta["content_digest"]:
            return None
        row = {
            "path": artifact_path(component, stem),
            "type": "npz",
            "size": stored.size,
            "sha256": stored.sha256,
            "retention_class": "derived",
            "content_digest": digest,
            "schema_version": meta["schema_version"],
        }
        return row, standing

    def _put_artifact(self, run_path: str, component: str, row: dict[str, Any], parts: list[Buffer]) -> dict[str, Any]:
        key = self._artifact_key(run_path, row["path"])
        if self._store.exists(key):
            manifest = self.read_manifest(run_path)
            current = find_row(manifest, component) if manifest else None
            named = {item["path"]: item["sha256"] for item in current["artifacts"]} if current else {}
            if named.get(row["path"], row["sha256"]) != row["sha256"]:
                self.update_manifest(run_path, lambda document: retract_row(document, component))
        self._store.put(key, parts)
        return row


def _artifact_row(path: str, kind: str, parts: list[Buffer], retention_class: str) -> dict[str, Any]:
    if retention_class not in RETENTION_CLASSES:
        raise TrendFlowError("artifact_validation_failed", f"Retention class {retention_class!r} is unknown.")
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part)
    size = sum(len(part) for part in parts)
    return {"path": path, "type": kind, "size": size, "sha256": hasher.hexdigest(), "retention_class": retention_class}


def _require_owner(run_path: str, component: str, meta: Mapping[str, Any]) -> None:
    owner = f"{meta.get('platform_id')}/{meta.get('video_id')}/{meta.get('run_id')}"
    if owner != run_path:
        raise TrendFlowError("artifact_validation_failed", "The artifact's identity is not that of the run it enters.")
    if meta.get("producer") != component:
        raise TrendFlowError("artifact_validation_failed", f"The artifact of {component} names another producer.")


def _require_sha256(actual: str, expected: str | None, component: str) -> None:
    if expected is not None and actual != expected:
        raise TrendFlowError("artifact_validation_failed", f"An artifact of {component} does not match its sha256.")


def _require_same_identity(before: Manifest, after: Manifest) -> None:
    if any(before["run"][key] != after["run"].get(key) for key in IDENTITY_KEYS):
        raise TrendFlowError("artifact_validation_failed", "A manifest update may not change the run identity.")


def _manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")


def _parse_manifest(data: bytes) -> Manifest:
    try:
        manifest = json.loads(data)
    except ValueError as exc:
        raise TrendFlowError("artifact_validation_failed", "The manifest is not JSON.") from exc
    if not isinstance(manifest, dict) or manifest.get("schema_version") != MANIFEST_SCHEMA_VERSION:
        raise TrendFlowError("artifact_validation_failed", f"The manifest is not a {MANIFEST_SCHEMA_VERSION}.")
    return manifest
