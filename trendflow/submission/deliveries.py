"""Deliveries of messages to workers: counted in the store, because no broker counts them over its own restarts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.state.clock import Clock
from trendflow.state.layout import run_folder
from trendflow.storage.object_store import ObjectNotFound, ObjectStore
from trendflow.submission.admission import SubmissionLimits
from trendflow.submission.message import Message, parse_message

SCHEMA = "dead_letter_v1"
ROOT = "submissions/_dead_letters"


class DeadLettered(TrendFlowError):
    """The message was delivered as often as allowed (`internal_error`): acknowledge it and end the run."""


@dataclass(frozen=True)
class DeadLetter:
    """A message that is not delivered any more. `dead_at` in UTC."""

    message: Message
    deliveries: int
    dead_at: str
    error_code: str
    error: str


class Deliveries:
    """Which delivery of a message this is, and the list of those that had too many."""

    def __init__(
        self, store: ObjectStore, schemas: SchemaRegistry, clock: Clock, *, limits: SubmissionLimits | None = None
    ) -> None:
        self._store, self._schemas, self._clock = store, schemas, clock
        self._allowed = (limits or SubmissionLimits()).max_deliveries

    def begin(self, message: Message, holder: str) -> int:
        """Count a delivery before any work is done for it; returns its number, from 1.

        Raises `DeadLettered`, after noting the message in the list, for one delivery more than allowed.
        """
        data = canonical_json({"holder": holder, "ts": self._clock.utc()})
        for number in range(1, self._allowed + 1):
            if self._store.put_if_absent(_delivery_key(message.run_path, number), data):
                return number
        error = DeadLettered(
            "internal_error",
            f"The run was delivered {self._allowed} times and no worker brought it to an end.",
            deliveries=self._allowed,
        )
        letter = {
            "schema_version": SCHEMA,
            "dead_at": self._clock.utc(),
            "deliveries": self._allowed,
            "error_code": error.error_code,
            "error": error.message,
            "message": message.as_dict(),
        }
        self._store.put_if_absent(_letter_key(message.run_path), canonical_json(letter))
        raise error

    def count(self, run_path: str) -> int:
        """How often the message of a run was delivered."""
        return sum(1 for _ in self._store.list(_deliveries_folder(run_path)))

    def dead_letters(self) -> Iterator[DeadLetter]:
        """The list, by platform, video and run. Raises `artifact_validation_failed` for a damaged entry."""
        for info in self._store.list(ROOT):
            try:
                data = self._store.get(info.key)
            except ObjectNotFound:  # revived since the listing
                continue
            yield self._parse(data)

    def revive(self, run_path: str) -> bool:
        """Take a message off the list, so that it may be delivered again; False when it is not there.

        The run has to be queued again by the caller.
        """
        # The count first: a letter whose count is gone may be revived again, a count without a letter never.
        self._store.delete_prefix(_deliveries_folder(run_path))
        return self._store.delete(_letter_key(run_path))

    def forget(self, platform_id: str, video_id: str) -> int:
        """Remove the letters of a video; returns their number. Its counts lie with the state of its runs."""
        return self._store.delete_prefix(f"{ROOT}/{platform_id}/{video_id}")

    def _parse(self, data: bytes) -> DeadLetter:
        try:
            document = json.loads(data)
        except ValueError:
            raise TrendFlowError("artifact_validation_failed", "A dead letter is not JSON.") from None
        problems = validate_document(self._schemas, SCHEMA, document)
        if problems:
            raise TrendFlowError("artifact_validation_failed", f"A dead letter is not valid: {problems[0]}")
        message = parse_message(self._schemas, document["message"])
        return DeadLetter(
            message, document["deliveries"], document["dead_at"], document["error_code"], document["error"]
        )


def _deliveries_folder(run_path: str) -> str:
    return f"{run_folder(run_path)}/deliveries"


def _delivery_key(run_path: str, number: int) -> str:
    return f"{_deliveries_folder(run_path)}/{number}.json"


def _letter_key(run_path: str) -> str:
    run_folder(run_path)  # refuses what is no run
    return f"{ROOT}/{run_path}.json"
