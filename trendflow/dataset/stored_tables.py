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
        """Make this the current version of `name`."""
        contents = files or {}
        stored = StoredTable(name, {file: sha256_hex(data) for file, data in sorted(contents.items())}, facts or {})
        for file, data in contents.items():
            self._store.put(f"{stored.prefix}/{file}", data)
        before = self._superseded(name)
        self._store.put(f"{ROOT}/{name}/{_RECORD}", canonical_json(asdict(stored)))
        # Only what was current: another folder may be that of a writer who is about to publish it.
        if before is not None and before.digest != stored.digest:
            self._store.delete_prefix(before.prefix)
        return stored

    def find(self, name: str) -> StoredTable | None:
        """The current version. Raises `artifact_validation_failed` for a record that cannot be read."""
        try:
            document = json.loads(self._store.get(f"{ROOT}/{name}/{_RECORD}"))
            return StoredTable(document["name"], document["files"], document["facts"])
        except ObjectNotFound:
            return None
        except (ValueError, KeyError, TypeError) as exc:
            raise TrendFlowError("artifact_validation_failed", f"The record of the stored {name} is damaged.") from exc

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

    def _superseded(self, name: str) -> StoredTable | None:
        """The current version; None also where its record is damaged, which a new one repairs."""
        try:
            return self.find(name)
        except TrendFlowError as error:
            if error.error_class == "transient":
                raise
            return None

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
