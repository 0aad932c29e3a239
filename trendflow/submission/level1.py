"""Level 1 of the scheduler: accepted runs become pending, buffer windows become batches, batched runs are handed over.

Every step is a function of what the store holds, so it does not matter how often or where a process dies: the inbox
says what was accepted, the log of level 1 which runs are pending and in which batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from trendflow.contracts.canonical import digest_of, utc_text
from trendflow.state.clock import Clock
from trendflow.state.global_manager import GlobalManager
from trendflow.storage.object_store import ObjectStore
from trendflow.submission.admission import Admission, SubmissionLimits
from trendflow.submission.fairness import keep_turns, kept_turns
from trendflow.submission.inbox import Inbox, Place
from trendflow.submission.message import PRIORITIES, Message, Priority

TAKEN_AT_ONCE = 250
"""Runs that one step makes pending at most: each takes the store some ms, and Dagster gives up what takes a minute."""


@dataclass(frozen=True)
class _Pending:
    run_path: str
    submitted_at: str
    place: Place

    @property
    def order(self) -> tuple[str, str, int]:
        """FIFO: by the time of acceptance, and inside a submission in the caller's order."""
        return self.submitted_at, self.place.submission_id, self.place.item


class Level1Queue:
    """One per deployment, in the process that holds the `GlobalManager`. Not for several threads at once."""

    def __init__(
        self,
        store: ObjectStore,
        inbox: Inbox,
        manager: GlobalManager,
        clock: Clock,
        admission: Admission,
        *,
        limits: SubmissionLimits | None = None,
    ) -> None:
        self._store, self._inbox, self._manager = store, inbox, manager
        self._clock, self._admission = clock, admission
        self._window = timedelta(seconds=(limits or SubmissionLimits()).window_sec)
        self._turns = kept_turns(store)
        self._places: dict[str, Place | None] = {}
        self._messages: dict[str, Message] = {}
        self._seen_at: dict[str, float] = {}
        self._counted: tuple[int, dict[Priority, int]] = (-1, {})

    def step(self) -> list[str]:
        """Take in what was accepted and close the windows that are over; returns the ids of new batches.

        Call it every second or so. After an error call it again: nothing is done twice. A long list takes many steps.
        """
        made = list(self._close_windows(self._take_in()))
        self._drop_what_left()
        return made

    def take(self, count: int) -> list[Message]:
        """Up to `count` batched runs in the order in which they should be handed over; changes nothing.

        The same runs come again until `queued` or another status is recorded for them, so delivery is at least once.
        Empty while too little disk is free.
        """
        if not self._admission.has_space:
            return []
        lines = self._lines()
        turns, chosen = self._turns.copy(), list[Message]()
        while len(chosen) < count:
            waiting = _lengths(lines)
            name = turns.next(waiting)
            if name is None:
                break
            turns.served(name, waiting)
            message = self.message(lines[name].pop(0))
            if message is not None:  # a video that was deleted meanwhile: its run is being cancelled
                chosen.append(message)
        return chosen

    def message(self, run_path: str) -> Message | None:
        """The message of a run. None for one that came from elsewhere, was deleted since or cannot be read any more."""
        if run_path not in self._messages:
            place = self._place(run_path)
            submission = None if place is None else self._inbox.readable(place.submission_id)
            # All of a submission at once: a long list is one object, and its messages are asked for one after another.
            for _, message in submission.messages if submission is not None else ():
                self._messages.setdefault(message.run_path, message)
        return self._messages.get(run_path)

    def queued(self, message: Message) -> None:
        """The run was handed over."""
        waiting = self._waiting()
        row = self._manager.document["runs"].get(message.run_path)
        if row is None or row["status"] != "pending":
            return
        # The turn first: one that is counted twice because of a crash makes the others come earlier, never too late.
        self._turns.served(row["priority"], waiting)
        keep_turns(self._store, self._turns)
        self._manager.run_status(message.run_path, "queued")
        left = {**waiting, row["priority"]: max(0, waiting[row["priority"]] - 1)}
        self._counted = self._manager.document["last_seq"], left

    def _take_in(self) -> datetime | None:
        """Make accepted runs pending; returns when the first submission was accepted that is not through, if any."""
        taken, room, left = list[str](), TAKEN_AT_ONCE, None
        for submission in self._inbox.open():
            known = self._manager.document["runs"]
            # A run that level 1 knows is never set back, wherever an earlier attempt at this stopped.
            new = [message for _, message in submission.messages if message.run_path not in known]
            self._places |= {
                message.run_path: Place(submission.submission_id, item, message.run_path)
                for item, message in submission.messages
            }
            for message in new[:room]:
                path, accepted = message.run_path, submission.accepted_at
                self._messages[path] = message
                self._manager.run_status(path, "pending", priority=message.priority, submitted_at=accepted)
            if len(new) > room:
                left = datetime.fromisoformat(submission.accepted_at)
                break
            room -= len(new)
            taken.append(submission.submission_id)
        if taken:
            self._manager.checkpoint()  # a manager that was replaced unnoticed must not let a submission go
        for submission_id in taken:
            self._inbox.mark_taken(submission_id)
        return left

    def _close_windows(self, left: datetime | None) -> Iterator[str]:
        """Batches of the windows that are over; `left`: when what level 1 does not know yet was accepted."""
        now, moment = datetime.fromisoformat(self._clock.utc()), self._clock.monotonic()
        waiting = sorted(self._unbatched(), key=lambda run: run.order)
        self._seen_at = {run.run_path: self._seen_at.get(run.run_path, moment) for run in waiting}
        while waiting:
            opened = datetime.fromisoformat(waiting[0].submitted_at)
            closes = opened + self._window
            # Whoever accepted the run may have a clock that is ahead of this one.
            seen_for = timedelta(seconds=moment - self._seen_at[waiting[0].run_path])
            if now < closes and seen_for < self._window:
                return
            if left is not None and left < closes:
                return  # a window is closed whole, so that its batch does not depend on how far a step came
            inside = [run for run in waiting if datetime.fromisoformat(run.submitted_at) < closes]
            paths = [run.run_path for run in inside]
            # The name follows from the content: recording the same batch again changes nothing.
            batch_id = f"{opened:%Y%m%dT%H%M%S}.{opened.microsecond // 1000:03d}-{digest_of(paths)[:12]}"
            self._manager.assign_batch(batch_id, paths, opened_at=utc_text(opened), closes_at=utc_text(closes))
            yield batch_id
            waiting = waiting[len(inside) :]

    def _drop_what_left(self) -> None:
        """Keep in memory only what may be asked for again."""
        pending = {path for path, row in self._manager.document["runs"].items() if row["status"] == "pending"}
        self._places = {path: place for path, place in self._places.items() if path in pending}
        self._messages = {path: message for path, message in self._messages.items() if path in pending}

    def _unbatched(self) -> Iterator[_Pending]:
        for path, row in self._manager.document["runs"].items():
            if row["status"] == "pending" and row["batch_id"] is None:
                place = self._place(path)
                if place is not None:  # others come from elsewhere and have no message
                    yield _Pending(path, row["submitted_at"], place)

    def _waiting(self) -> Mapping[Priority, int]:
        """Lengths of the lines; counted anew only when somebody else wrote to level 1 since."""
        seq = self._manager.document["last_seq"]
        if self._counted[0] != seq:
            self._counted = seq, _lengths(self._lines())
        return self._counted[1]

    def _lines(self) -> dict[Priority, list[str]]:
        """Batched runs that wait to be handed over, by class, the oldest batch first and in the order of the batch."""
        document = self._manager.document
        lines: dict[Priority, list[str]] = {name: [] for name in PRIORITIES}
        seen: set[str] = set()
        for batch_id, batch in sorted(document["batches"].items(), key=_batch_order):
            for path in batch["runs"]:
                row = document["runs"].get(path)
                waits = row is not None and row["status"] == "pending" and row["batch_id"] == batch_id
                if waits and path not in seen:
                    seen.add(path)
                    lines[row["priority"]].append(path)
        return lines

    def _place(self, run_path: str) -> Place | None:
        if run_path not in self._places:
            found = self._inbox.place_of(run_path.rpartition("/")[2])
            self._places[run_path] = found if found is not None and found.run_path == run_path else None
        return self._places[run_path]


def _lengths(lines: Mapping[Priority, list[str]]) -> dict[Priority, int]:
    return {name: len(line) for name, line in lines.items()}


def _batch_order(entry: tuple[str, Mapping[str, Any]]) -> tuple[str, str]:
    batch_id, batch = entry
    return str(batch["opened_at"]), batch_id
