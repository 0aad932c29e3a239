"""What stands between snapshots and models, in the object store: one current version of each, whole and verified.

A version lies under its own digest and becomes the current one by replacing a small record, so a reader finds a whole
version or the one before, never parts of both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trendflow.contracts.canonical import canonical_json, digest_of, sha256_hex
from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.object_store import ObjectNotFound, ObjectStore
from trendflow.storage.retry import ContentionPolicy

ROOT = "tables"
SNAPSHOTS, TARGETS, CHANNELS, DATASET = "snapshots", "targets", "channels", "dataset"

_RECORD = "current.json"


@dataclass(frozen=True)
class StoredTable:
    """The record of one version. `files`: name → sha256. `facts`: what its readers need to know, no times among it."""

    name: str
    files: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """What this version is, hence its data version: equal contents have equal digests."""
        return digest_of(asdict(self))

    @property
    def prefix(self) -> str:
        """Key under which the files lie."""
        return f"{ROOT}/{self.name}/{self.digest}"


class TableStore:
    """Named versions in a store. Superseded files are removed: snapshots hold texts, which live in one place only."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def put(
        self, name: str, files: Mapping[str, bytes] | None = None, facts: Mapping[str, Any] | None = None
    ) -> StoredTable:
        """Make this the current version of `name`. Of several writers at once each replaces the one before it.

        Raises `storage_unavailable` when others keep replacing the record.
        """
        contents = files or {}
        stored = StoredTable(name, {file: sha256_hex(data) for file, data in sorted(contents.items())}, facts or {})
        record = canonical_json(asdict(stored))
        for _ in ContentionPolicy().attempts():
            before, etag = self._superseded(name)
            # Anew with every attempt: whoever replaced this very version in the meantime removed its files.
            for file, data in contents.items():
                self._store.put(f"{stored.prefix}/{file}", data)
            if not self._publish(name, record, etag):
                continue
            # Only what was current: another folder may be that of a writer who is about to publish it.
            if before is not None and before.digest != stored.digest:
                self._store.delete_prefix(before.prefix)
            return stored
        raise TrendFlowError("storage_unavailable", f"The record of the stored {name} could not be written.")

    def find(self, name: str) -> StoredTable | None:
        """The current version. Raises `artifact_validation_failed` for a record that cannot be read."""
        try:
            return _parsed(name, self._store.get(_record_key(name)))
        except ObjectNotFound:
            return None

    def require(self, name: str) -> StoredTable:
        """The current version. Raises `dependency_missing` when there is none."""
        found = self.find(name)
        if found is None:
            raise TrendFlowError("dependency_missing", f"No {name} are stored yet; make them first.", kind="artifact")
        return found

    def read(self, stored: StoredTable) -> dict[str, bytes]:
        """The files of a version. Raises `artifact_validation_failed` when one is gone or is another."""
        return {file: self._verified(stored, file, digest) for file, digest in stored.files.items()}

    def fetch(self, stored: StoredTable, folder: Path) -> Path:
        """Write the files of a version into `folder`; errors as `read`."""
        for file, data in self.read(stored).items():
            (folder / file).write_bytes(data)
        return folder

    def _superseded(self, name: str) -> tuple[StoredTable | None, str | None]:
        """The current version and the ETag of its record; no version where that is damaged, which a new one repairs."""
        try:
            data, etag = self._store.get_with_etag(_record_key(name))
        except ObjectNotFound:
            return None, None
        try:
            return _parsed(name, data), etag
        except TrendFlowError:
            return None, etag

    def _publish(self, name: str, record: bytes, etag: str | None) -> bool:
        """Write the record if it is still the one of this ETag; False when another writer was faster."""
        if etag is None:
            return self._store.put_if_absent(_record_key(name), record)
        return self._store.put_if_match(_record_key(name), record, etag)

    def _verified(self, stored: StoredTable, file: str, digest: str) -> bytes:
        try:
            data = self._store.get(f"{stored.prefix}/{file}")
        except ObjectNotFound as exc:
            raise TrendFlowError(
                "artifact_validation_failed", f"The stored {stored.name} lack their file {file}."
            ) from exc
        if sha256_hex(data) != digest:
            raise TrendFlowError("artifact_validation_failed", f"The stored {file} is not the file that was written.")
        return data


def _record_key(name: str) -> str:
    return f"{ROOT}/{name}/{_RECORD}"


def _parsed(name: str, data: bytes) -> StoredTable:
    try:
        document = json.loads(data)
        return StoredTable(document["name"], document["files"], document["facts"])
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise TrendFlowError("artifact_validation_failed", f"The record of the stored {name} is damaged.") from exc
