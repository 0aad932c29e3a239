"""The event contract (`state_event_v1`): what a journal holds, one object per event."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.state.errors import damaged

EVENT_SCHEMA = "state_event_v1"


@dataclass(frozen=True)
class Draft:
    """What a manager wants to record: an event without number, time and writer."""

    type: str
    subject: str
    source: str | None = None
    """State that the subject leaves; stored as `from`."""
    to: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """One recorded event; `seq` is its place in its log. Fields as in `schemas/state_event_v1.json`."""

    seq: int
    event_id: str
    ts: str
    level: int
    manager: str
    epoch: int
    type: str
    subject: str
    source: str | None
    to: str | None
    data: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        fields = asdict(self)
        return {"from" if name == "source" else name: value for name, value in fields.items()}


class EventCodec:
    """Events as canonical JSON, checked against the schema in both directions."""

    def __init__(self, schemas: SchemaRegistry) -> None:
        self._schemas = schemas
        document = schemas.documents[EVENT_SCHEMA]
        whole = schemas.document_validator(EVENT_SCHEMA)
        form = {key: value for key, value in document.items() if key not in ("$id", "$defs", "allOf")}
        types = {_type_of(rule): rule["then"] for rule in document["allOf"] if _type_of(rule)}
        writers = [rule for rule in document["allOf"] if not _type_of(rule)]
        # Many events are checked, and trying the rules of all the other types takes most of the time.
        self._validators = {
            name: whole.evolve(schema={**form, "allOf": [rule, *writers]}) for name, rule in types.items()
        }

    def encode(self, event: Event) -> bytes:
        """Raises `artifact_validation_failed` for an event outside the contract: nothing of it may be stored."""
        document = event.as_dict()
        if not self._is_valid(document):
            problems = validate_document(self._schemas, EVENT_SCHEMA, document)
            raise damaged(f"The event {event.type} breaks its contract: {problems[0]}")
        return canonical_json(document)

    def decode(self, data: bytes, seq: int | None = None) -> Event | None:
        """The event, or None when the bytes are none, or not the one of number `seq`."""
        try:
            document = json.loads(data)
        except ValueError:
            return None
        if not isinstance(document, dict) or not self._is_valid(document) or seq not in (None, document["seq"]):
            return None
        return Event(source=document.pop("from"), **document)

    def _is_valid(self, document: Mapping[str, Any]) -> bool:
        kind = document.get("type")
        validator = self._validators.get(kind) if isinstance(kind, str) else None
        return validator is not None and validator.is_valid(document)


def _type_of(rule: Mapping[str, Any]) -> str | None:
    """The event type that a rule of the schema is about."""
    kind = rule["if"]["properties"].get("type")
    return None if kind is None else str(kind["const"])
