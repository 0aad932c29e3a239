"""State files as checkpoints: written by compare-and-swap, never backwards, and read only when they are whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry
from trendflow.state import level1, level2, level3
from trendflow.state.documents import Document
from trendflow.state.errors import Fenced
from trendflow.state.layout import GLOBAL, RUN, file_key
from trendflow.storage.object_store import ObjectNotFound, ObjectStore
from trendflow.storage.retry import ContentionPolicy, exhausted

_SCHEMAS: Mapping[str, str] = {GLOBAL: level1.SCHEMA, RUN: level2.SCHEMA}


class Checkpoints:
    """The state files of one folder."""

    def __init__(
        self, store: ObjectStore, folder: str, schemas: SchemaRegistry, contention: ContentionPolicy | None = None
    ) -> None:
        self._store, self._folder, self._schemas = store, folder, schemas
        self._contention = contention or ContentionPolicy()

    def read(self, manager: str) -> Document | None:
        """The file of a manager, None when there is none or it is not valid."""
        try:
            return self._parse(manager, self._store.get(file_key(self._folder, manager)))
        except ObjectNotFound:
            return None

    def write(self, manager: str, document: Document) -> None:
        """Store the document unless the file is as new already.

        Raises `Fenced` when a later manager wrote the file, `storage_unavailable` when it stays contended.
        """
        key, data = file_key(self._folder, manager), canonical_json(document)
        for _ in self._contention.attempts():
            try:
                stored, etag = self._store.get_with_etag(key)
            except ObjectNotFound:
                if self._store.put_if_absent(key, data):
                    return
                continue
            current = self._parse(manager, stored)
            if current is not None and current["epoch"] > document["epoch"]:
                raise Fenced.by(manager, document["epoch"], current["epoch"])
            if current is not None and current["last_seq"] >= document["last_seq"]:
                return
            if self._store.put_if_match(key, data, etag):
                return
        raise exhausted(TrendFlowError("storage_unavailable", "A state file stayed contended for too long."))

    def _parse(self, manager: str, data: bytes) -> Document | None:
        try:
            document: Any = json.loads(data)
        except ValueError:
            return None
        # Only whole files are ever written, so this looks for damage and for other versions, not for wrong values.
        schema = _SCHEMAS.get(manager, level3.SCHEMA)
        keys = set(self._schemas.documents[schema]["required"])
        if not isinstance(document, dict) or set(document) != keys or document["schema_version"] != schema:
            return None
        return document if self._is_of(manager, document) else None

    def _is_of(self, manager: str, document: Document) -> bool:
        if manager == GLOBAL:
            return True
        run = document["run"]
        name = RUN if manager == RUN else document["processor"]["name"]
        return name == manager and self._folder.endswith(f"{run['platform_id']}/{run['video_id']}/{run['run_id']}")
