"""Leftovers that belong to no single video: index entries that lead nowhere, publications that nobody finished."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.stored_tables import CHANNELS, DATASET, SNAPSHOTS, TARGETS, TableStore
from trendflow.dataset.stored_tables import ROOT as TABLES
from trendflow.dataset.table.files import METADATA_FILE, STORE_ROOT
from trendflow.retention.policy import RetentionPolicy
from trendflow.retention.removal import Removal
from trendflow.storage.artifact_index import ROOT as ARTIFACT_INDEX
from trendflow.storage.object_store import ObjectInfo, ObjectNotFound, ObjectStore
from trendflow.storage.result_store import ResultStore

_READERS = 8


class IndexRule:
    """Entries of the artifact index that lead nowhere: their run names no result of their key. A scope is a folder.

    An entry is written after the manifest row that it leads to, so an old one without a row never gets it.
    """

    def __init__(self, store: ObjectStore, policy: RetentionPolicy, now: datetime) -> None:
        self._store, self._results, self._old = store, ResultStore(store), now - policy.grace

    def scopes(self) -> Iterable[str]:
        return [f"{ARTIFACT_INDEX}/{folder}" for folder in self._store.folders(ARTIFACT_INDEX)]

    def removals(self, scope: str, gone: frozenset[str] = frozenset()) -> Iterator[Removal]:
        old = [info for info in self._store.list(scope) if info.last_modified <= self._old]
        with ThreadPoolExecutor(_READERS) as readers:
            paths = list(readers.map(lambda info: indexed_run(self._store, info), old))
            runs = sorted({path for path in paths if path} - gone)
            keys = dict(zip(runs, readers.map(self._keys, runs), strict=True))
        for info, path in zip(old, paths, strict=True):
            if path is None:
                continue
            named = keys.get(path, frozenset())
            if named is not None and info.key.rpartition("/")[2].removesuffix(".json") not in named:
                yield Removal.of("index", info)

    def _keys(self, run_path: str) -> frozenset[str] | None:
        """Keys of the results that a run can give others; None when its manifest cannot be read.

        A damaged manifest is left to people, and with it what leads there.
        """
        try:
            manifest = self._results.read_manifest(run_path)
        except TrendFlowError as error:
            if error.error_class == "transient":
                raise
            return None
        rows = () if manifest is None else manifest["components"]
        return frozenset(row["idempotency_key"] for row in rows if row["status"] in ("ok", "empty"))


class PublicationRule:
    """Table publications that no record names, and datasets whose copy was never completed."""

    def __init__(self, store: ObjectStore, policy: RetentionPolicy, now: datetime) -> None:
        self._store, self._old = store, now - policy.grace

    def scopes(self) -> Iterable[str]:
        names = (SNAPSHOTS, TARGETS, CHANNELS, DATASET)
        yield from (f"{TABLES}/{name}" for name in names)
        yield from (f"{STORE_ROOT}/{version}" for version in self._store.folders(STORE_ROOT))

    def removals(self, scope: str, gone: frozenset[str] = frozenset()) -> Iterator[Removal]:
        root, _, name = scope.partition("/")
        if root == STORE_ROOT:
            objects = list(self._store.list(scope))
            if not self._store.exists(f"{scope}/{METADATA_FILE}"):
                yield from self._leftovers(objects)
            return
        folders = {folder: list(self._store.list(f"{scope}/{folder}")) for folder in self._store.folders(scope)}
        try:
            # After the listing: what was published meanwhile is named.
            current = TableStore(self._store).find(name)
        except TrendFlowError as error:
            if error.error_class == "transient":
                raise
            return  # whose files these are cannot be told; the next publication repairs the record
        for folder, objects in folders.items():
            if current is None or folder != current.folder:
                yield from self._leftovers(objects)

    def _leftovers(self, objects: list[ObjectInfo]) -> Iterator[Removal]:
        """All or nothing: while one object is young, a writer may be at work on the folder."""
        if all(info.last_modified <= self._old for info in objects):
            yield from (Removal.of("tables", info) for info in objects)


def indexed_run(store: ObjectStore, info: ObjectInfo, field: str = "run_path") -> str | None:
    """The run that an index entry names in this field, empty where it cannot be read; None when the entry is gone."""
    try:
        return str(json.loads(store.get(info.key))[field])
    except ObjectNotFound:
        return None
    except (ValueError, KeyError, TypeError):
        return ""
