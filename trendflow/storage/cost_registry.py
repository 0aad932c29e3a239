"""The cost registry in the object store: one small object per execution of a run, written once and never changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.costs import COSTS_SCHEMA, CostRow
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.storage.object_store import ObjectNotFound, ObjectStore

ROOT = f"costs/{COSTS_SCHEMA}"
MAX_OBJECTS = 2000
"""Newest executions that are read unless the caller asks for more: estimates rest on the last rows only."""

_READERS = 8


class CostRegistry:
    """Appends and reads rows; `trendflow.contracts.costs` makes estimates of them."""

    def __init__(self, store: ObjectStore, schemas: SchemaRegistry) -> None:
        self._store, self._schemas = store, schemas

    def append(self, rows: Sequence[CostRow], *, run_id: str, at: str) -> str:
        """Store the rows of one execution that ended `at` (UTC, milliseconds). Returns the key of the object.

        Raises `artifact_validation_failed` for rows that break the schema, or when this execution was stored already
        with other rows.
        """
        document = {"schema_version": COSTS_SCHEMA, "rows": [dict(row) for row in rows]}
        problems = validate_document(self._schemas, COSTS_SCHEMA, document)
        if problems:
            raise TrendFlowError("artifact_validation_failed", f"A cost row is not valid: {problems[0]}")
        # The time first: the keys of one day sort by it, so the newest executions are found without reading them all.
        key = f"{ROOT}/{at[:10]}/{re.sub('[^0-9]', '', at[11:23])}_{run_id}.json"
        data = canonical_json(document)
        if not self._store.put_if_absent(key, data) and self._store.get(key) != data:
            raise TrendFlowError("artifact_validation_failed", "The costs of this execution are stored already.")
        return key

    def rows(self, max_objects: int = MAX_OBJECTS) -> list[dict[str, Any]]:
        """Rows of the newest executions, newest first. Raises `artifact_validation_failed` for an unreadable object."""
        keys = list(self._newest(max_objects))
        with ThreadPoolExecutor(_READERS) as readers:
            return [row for found in readers.map(self._read, keys) for row in found]

    def _newest(self, max_objects: int) -> Iterator[str]:
        left = max_objects
        for day in sorted(self._store.folders(ROOT), reverse=True):
            keys = sorted((info.key for info in self._store.list(f"{ROOT}/{day}")), reverse=True)
            yield from keys[:left]
            left -= len(keys)
            if left <= 0:
                return

    def _read(self, key: str) -> list[dict[str, Any]]:
        try:
            document = json.loads(self._store.get(key))
        except ObjectNotFound:  # removed since it was listed
            return []
        except ValueError as exc:
            raise TrendFlowError("artifact_validation_failed", f"The cost object {key} is not readable.") from exc
        problems = validate_document(self._schemas, COSTS_SCHEMA, document)
        if problems:
            raise TrendFlowError("artifact_validation_failed", f"The cost object {key} is not valid: {problems[0]}")
        return list(document["rows"])
