"""The alarms that stand, and those that ended lately, as one document of the store (`alarms_v1`)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from trendflow.alarms.rules import Alarm
from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.storage.object_store import ObjectNotFound, ObjectStore
from trendflow.storage.retry import ContentionPolicy, exhausted

log = logging.getLogger(__name__)

KEY = "alarms/alarms.json"
SCHEMA = "alarms_v1"
KEPT = 100
"""Alarms that ended and are still listed, the latest first."""

Standing = dict[str, Any]
"""An alarm as the document has it: the fields of `Alarm`, and since when it stands."""


@dataclass(frozen=True)
class Changes:
    """What one look changed. `active` are all alarms that stand now, `raised` those that did not before."""

    active: tuple[Standing, ...]
    raised: tuple[Standing, ...]
    ended: tuple[Standing, ...]


class AlarmBook:
    """Any number of processes may read it; whoever looks for alarms updates it."""

    def __init__(self, store: ObjectStore, schemas: SchemaRegistry) -> None:
        self._store, self._schemas = store, schemas

    def active(self) -> list[Standing]:
        """Alarms that stand. Raises `artifact_validation_failed` for a damaged document."""
        try:
            return list(self._parse(self._store.get(KEY))["active"])
        except ObjectNotFound:
            return []

    def update(self, alarms: Iterable[Alarm], *, at: str) -> Changes:
        """Let exactly these alarms stand. One that stood before keeps its beginning and takes the new value."""
        found = {(alarm.rule, alarm.subject): asdict(alarm) for alarm in alarms}
        for _ in ContentionPolicy().attempts():
            document, etag = self._read(at)
            before = {(row["rule"], row["subject"]): row for row in document["active"]}
            active = [
                {**row, "since": before[key]["since"] if key in before else at} for key, row in sorted(found.items())
            ]
            ended = [{**row, "until": at} for key, row in sorted(before.items()) if key not in found]
            changed = {**document, "active": active, "ended": [*ended, *document["ended"]][:KEPT]}
            raised = [row for row in active if (row["rule"], row["subject"]) not in before]
            if changed == document or self._write({**changed, "updated_at": at}, etag):
                return Changes(tuple(active), tuple(raised), tuple(ended))
        raise exhausted(TrendFlowError("storage_unavailable", "The alarms stayed contended for too long."))

    def _read(self, at: str) -> tuple[dict[str, Any], str | None]:
        fresh = {"schema_version": SCHEMA, "updated_at": at, "active": [], "ended": []}
        try:
            data, etag = self._store.get_with_etag(KEY)
        except ObjectNotFound:
            return fresh, None
        try:
            return self._parse(data), etag
        except TrendFlowError as error:
            # What stands is found anew at every look; a document that nobody can read must not hide it for ever.
            log.error("the alarms are written anew: %s", error)
            return fresh, etag

    def _write(self, document: dict[str, Any], etag: str | None) -> bool:
        problems = validate_document(self._schemas, SCHEMA, document)
        if problems:
            raise TrendFlowError("artifact_validation_failed", f"The alarms are not valid: {problems[0]}")
        data = canonical_json(document)
        return self._store.put_if_absent(KEY, data) if etag is None else self._store.put_if_match(KEY, data, etag)

    def _parse(self, data: bytes) -> dict[str, Any]:
        try:
            document = json.loads(data)
        except ValueError as exc:
            raise TrendFlowError("artifact_validation_failed", "The stored alarms are not readable.") from exc
        problems = validate_document(self._schemas, SCHEMA, document)
        if problems:
            raise TrendFlowError("artifact_validation_failed", f"The stored alarms are not valid: {problems[0]}")
        return dict(document)
