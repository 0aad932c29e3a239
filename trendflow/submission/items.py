"""What became of each item of a submission, and the stored form of all of them (`submission_v1`)."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trendflow.contracts.canonical import canonical_json, digest_of
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.submission.message import Message, read_message, require_platform

SUBMISSION_SCHEMA = "submission_v1"
_CONTENT_DIGEST = "content_digest"
_ID = re.compile(r"(?P<day>[0-9]{8})-[A-Za-z0-9_-]{1,64}\Z")
_RUNS = uuid.UUID("6b0c8d7e-0a55-5a3c-9f0e-2f6f8f6f7c11")  # namespace of the run ids that are minted here


@dataclass(frozen=True)
class New:
    """A run that has to be made."""

    message: Message


@dataclass(frozen=True)
class Cached:
    """A success that is young enough: the caller gets that run."""

    run_path: str
    finished_at: str


@dataclass(frozen=True)
class Duplicate:
    """The same video in the same configuration stands at `same_as` (from 0) and has this run."""

    same_as: int
    run_path: str


@dataclass(frozen=True)
class Exists:
    """A run of the id that the caller chose is there already."""

    run_id: str


@dataclass(frozen=True)
class Refused:
    """No run: the reason."""

    error_code: str
    error: str


Item = New | Cached | Duplicate | Exists | Refused


def path_of(item: Item) -> str | None:
    """The run path that an item names, None for one that names none."""
    match item:
        case New(message):
            return message.run_path
        case Cached(run_path, _) | Duplicate(_, run_path):
            return run_path
        case _:
            return None


@dataclass(frozen=True)
class Submission:
    """What one caller put in at once. `items` in the caller's order, `accepted_at` in UTC."""

    submission_id: str
    user_id: str
    accepted_at: str
    request_digest: str
    items: Sequence[Item]

    @property
    def messages(self) -> list[tuple[int, Message]]:
        """The new runs with their places among the items."""
        return [(place, item.message) for place, item in enumerate(self.items) if isinstance(item, New)]

    def encode(self, schemas: SchemaRegistry) -> bytes:
        """The stored form, with a digest that tells readers that it was validated here.

        Raises `artifact_validation_failed` for what breaks the contract: the reader would find it for ever.
        """
        content = {
            "schema_version": SUBMISSION_SCHEMA,
            "submission_id": self.submission_id,
            "user_id": self.user_id,
            "accepted_at": self.accepted_at,
            "request_digest": self.request_digest,
            "items": [_as_json(item) for item in self.items],
        }
        _require_valid(schemas, content)
        return canonical_json({**content, _CONTENT_DIGEST: digest_of(content)})


def decode_submission(schemas: SchemaRegistry, data: bytes) -> Submission:
    """Raises `artifact_validation_failed` for bytes that are no submission, or not those that were stored.

    What has a digest was validated when it was stored: of ten thousand messages that takes seconds, in every process
    that reads them. What has none comes from an earlier release and is validated here.
    """
    try:
        document = json.loads(data)
        stated = document.pop(_CONTENT_DIGEST, None) if isinstance(document, dict) else None
        is_intact = stated is None or stated == digest_of(document)
    except ValueError:
        raise TrendFlowError("artifact_validation_failed", "A stored submission is not JSON.") from None
    if not is_intact:
        raise TrendFlowError("artifact_validation_failed", "A stored submission is not what its digest says.")
    if stated is None:
        _require_valid(schemas, document)
    items = tuple(_item(item) for item in document.pop("items"))
    del document["schema_version"]
    return Submission(**document, items=items)


def submission_day(submission_id: str) -> str:
    """The day `yyyymmdd` that a submission id begins with, which is also its folder.

    The id decides where a submission lies, not the time at which it arrives: repeated after midnight it is still the
    same one. Raises `input_constraint_violated` for an id of another form.
    """
    match = _ID.match(submission_id)
    if match is None or not _is_day(match["day"]):
        raise TrendFlowError(
            "input_constraint_violated", "A submission id is <yyyymmdd>-<1 to 64 letters, digits, '_' or '-'>."
        )
    return match["day"]


def new_submission_id(now: str) -> str:
    """An id for a caller that has none; `now` is UTC, ISO 8601."""
    return f"{now[:10].replace('-', '')}-{uuid.uuid4().hex}"


def minted_run_id(submission_id: str, place: int) -> str:
    """A UUID for the run of an item without a run id: the same one whenever the submission is repeated."""
    return str(uuid.uuid5(_RUNS, f"{submission_id}/{place}"))


def _require_valid(schemas: SchemaRegistry, document: Any) -> None:
    problems = validate_document(schemas, SUBMISSION_SCHEMA, document)
    if problems:
        raise TrendFlowError("artifact_validation_failed", f"A submission is not valid: {problems[0]}")
    for item in document["items"]:
        if item["decision"] == "new":
            require_platform(item["message"])


def _is_day(text: str) -> bool:
    try:
        datetime.strptime(text, "%Y%m%d")
    except ValueError:
        return False
    return True


def _as_json(item: Item) -> dict[str, Any]:
    match item:
        case New(message):
            return {"decision": "new", "message": message.as_dict()}
        case Cached(run_path, finished_at):
            return {"decision": "cached", "run_path": run_path, "finished_at": finished_at}
        case Duplicate(same_as, run_path):
            return {"decision": "duplicate", "same_as": same_as, "run_path": run_path}
        case Exists(run_id):
            return {"decision": "exists", "run_id": run_id}
        case Refused(error_code, error):
            return {"decision": "refused", "error_code": error_code, "error": error}


def _item(document: Mapping[str, Any]) -> Item:
    values = {name: value for name, value in document.items() if name != "decision"}
    match document["decision"]:
        case "new":
            return New(read_message(values["message"]))
        case "cached":
            return Cached(**values)
        case "duplicate":
            return Duplicate(**values)
        case "exists":
            return Exists(**values)
        case _:
            return Refused(**values)
