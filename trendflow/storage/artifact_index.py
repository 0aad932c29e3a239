"""Index from idempotency key to the run that holds the result. Rebuildable from manifests; only ever a hint."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.object_store import ObjectNotFound, ObjectStore
from trendflow.storage.result_store import ResultStore

ROOT = "index/artifacts"

_KEY = re.compile(r"[0-9a-f]{64}\Z")


class ArtifactIndex:
    """One small object per key. The first entry stands until the run it names is gone or was proven unusable."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._results = ResultStore(store)

    def lookup(self, key: str) -> dict[str, Any] | None:
        """The entry of an idempotency key. Raises `artifact_validation_failed` when the entry is not readable."""
        try:
            return _parse(self._store.get(_object_key(key)))
        except ObjectNotFound:
            return None

    def record(self, key: str, entry: Mapping[str, Any], *, refuted: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Record where the result of `key` lies and return the entry that stands afterwards.

        `entry` holds at least `run_path` and `component`. An entry that stands already is kept, because equal keys
        have equal results, unless its run no longer has a manifest, the entry is unreadable, it names the same run, or
        the caller passes it as `refuted` after finding that what it points to cannot be used.
        """
        object_key = _object_key(key)
        data = canonical_json(dict(entry))
        if self._store.put_if_absent(object_key, data):
            return dict(entry)
        try:
            current_data, etag = self._store.get_with_etag(object_key)
        except ObjectNotFound:  # removed between the two requests: the place is free again
            self._store.put_if_absent(object_key, data)
            return self.lookup(key) or dict(entry)
        current = _parse_or_none(current_data)
        if current is not None and not self._replaceable(current, entry, refuted):
            return current
        if self._store.put_if_match(object_key, data, etag):
            return dict(entry)
        return self.lookup(key) or dict(entry)

    def remove(self, key: str) -> bool:
        """Forget a key; False when it was unknown."""
        return self._store.delete(_object_key(key))

    def _replaceable(
        self, current: Mapping[str, Any], entry: Mapping[str, Any], refuted: Mapping[str, Any] | None
    ) -> bool:
        if current["run_path"] == entry["run_path"] or current == refuted:
            return True
        return not self._store.exists(f"{self._results.run_folder(current['run_path'])}/manifest.json")


def _object_key(key: str) -> str:
    if not _KEY.match(key):
        raise TrendFlowError("artifact_validation_failed", "An idempotency key is 64 lower-case hex digits.")
    return f"{ROOT}/{key[:2]}/{key}.json"


def _parse_or_none(data: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(data)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("run_path"), str) else None


def _parse(data: bytes) -> dict[str, Any]:
    entry = _parse_or_none(data)
    if entry is None:
        raise TrendFlowError("artifact_validation_failed", "An artifact index entry is not readable.")
    return entry
