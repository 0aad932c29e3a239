"""What stands between snapshots and models, in the object store: one current version of each, whole and verified.

Every publication lies in a folder of its own and becomes the current one by replacing a small record, so a reader finds
a whole version or the one before, never parts of both. Equal contents published twice are one version in two folders:
whoever supersedes a publication removes its folder, and must not hit the files of another writer by that.
"""

from __future__ import annotations

import json
import uuid
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
    """The record of one version. `files`: name → sha256. `facts`: what its readers need to know, no times among it.

    `folder`: where this publication of it lies, empty without files.
    """

    name: str
    files: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""

    @property
    def digest(self) -> str:
        """What this version is, hence its data version: equal contents have equal digests, wherever they lie."""
        return digest_of({name: value for name, value in asdict(self).items() if name != "folder"})

    @property
    def prefix(self) -> str:
        """Key under which the files lie."""
        return f"{ROOT}/{self.name}/{self.folder}"


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
        digests = {file: sha256_hex(data) for file, data in sorted(contents.items())}
        stored = StoredTable(name, digests, facts or {}, uuid.uuid4().hex if contents else "")
        for file, data in contents.items():
            self._store.put(f"{stored.prefix}/{file}", data)
        record = canonical_json(asdict(stored))
        for _ in ContentionPolicy().attempts():
            before, etag = self._superseded(name)
            if self._publish(name, record, etag):
                # Only what was current: another folder may be that of a writer who is about to publish it.
                if before is not None and before != stored:
                    self._remove(before)
                return stored
        self._remove(stored)
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

    def current(self, name: str) -> tuple[StoredTable, dict[str, bytes]]:
        """The current version and its files, also while others publish: what was superseded meanwhile is read anew.

        Raises `dependency_missing` when there is none, `artifact_validation_failed` as `read`, and
        `storage_unavailable` when others keep replacing it.
        """
        stored = self.require(name)
        for _ in ContentionPolicy().attempts():
            try:
                return stored, self._contents(stored)
            except ObjectNotFound as exc:
                before, stored = stored, self.require(name)
                if stored == before:
                    raise _lacking(stored, exc) from exc
        raise TrendFlowError("storage_unavailable", f"The stored {name} were replaced faster than they can be read.")

    def read(self, stored: StoredTable) -> dict[str, bytes]:
        """The files of a version. Raises `artifact_validation_failed` when one is gone or is another."""
        try:
            return self._contents(stored)
        except ObjectNotFound as exc:
            raise _lacking(stored, exc) from exc

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

    def _remove(self, stored: StoredTable) -> None:
        if stored.files:  # without any there is no folder, and the record lies above all of them
            self._store.delete_prefix(stored.prefix)

    def _contents(self, stored: StoredTable) -> dict[str, bytes]:
        """Errors as `read`, but `ObjectNotFound` for a file that is gone."""
        found = {}
        for file, digest in stored.files.items():
            found[file] = self._store.get(f"{stored.prefix}/{file}")
            if sha256_hex(found[file]) != digest:
                raise TrendFlowError(
                    "artifact_validation_failed", f"The stored {file} is not the file that was written."
                )
        return found


def _lacking(stored: StoredTable, missing: ObjectNotFound) -> TrendFlowError:
    file = missing.detail["key"].rpartition("/")[2]
    return TrendFlowError("artifact_validation_failed", f"The stored {stored.name} lack their file {file}.")


def _record_key(name: str) -> str:
    return f"{ROOT}/{name}/{_RECORD}"


def _parsed(name: str, data: bytes) -> StoredTable:
    try:
        document = json.loads(data)
        found = StoredTable(document["name"], document["files"], document["facts"], document["folder"])
        if bool(found.files) != bool(found.folder):
            raise ValueError("files without a folder, or a folder without files")
        return found
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise TrendFlowError("artifact_validation_failed", f"The record of the stored {name} is damaged.") from exc
