"""The manager of the deployment (level 1): which runs there are, in which batches, on which workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from trendflow.contracts.vocab import RunState
from trendflow.state.documents import Document, Documents
from trendflow.state.errors import IllegalTransition
from trendflow.state.events import Draft
from trendflow.state.file_manager import FileManager
from trendflow.state.layout import GLOBAL
from trendflow.state.log_view import LogView
from trendflow.state.store import StateStore
from trendflow.state.transitions import RUN_END, queue_may


class GlobalManager:
    """The one writer of level 1. Another process that opens it fences this one off (`Fenced`)."""

    def __init__(self, states: StateStore) -> None:
        log = states.global_log()
        self._journal = log.journal
        self._view = LogView(log, states.clock)
        self._file = FileManager(self._view, log.checkpoints, states.clock, GLOBAL, 1)

    @classmethod
    def open(cls, states: StateStore, *, holder: str, knobs: Mapping[str, Any] | None = None) -> GlobalManager:
        """Take over level 1. `knobs` are those in force from now on; without them the known ones stay."""
        made = cls(states)
        made._file.start({"holder": holder, **({} if knobs is None else {"knobs": dict(knobs)})})
        # Whoever had level 1 until then may have taken a deleted video out of its file after that was read here.
        made._view.reopen()
        return made

    @property
    def document(self) -> Document:
        """Level 1 as this process knows it, without queue positions."""
        return self._view.documents[GLOBAL]

    def follow(self) -> None:
        """Read what others wrote since. Raises `Fenced` when one of them has replaced this manager."""
        self._view.follow()
        self._file.is_in_force(self._view.documents)

    def run_status(self, run_path: str, to: RunState, **data: Any) -> None:
        """A run was seen to be in this state. What lies between is recorded too, so that every transition is legal.

        `data`: `priority`, `submitted_at` of a new run, `stage`, `worker` (`{"id", "device"}`), `error_code`, `error`.
        Raises `IllegalTransition` when no way leads there.
        """
        with self._view.lock:
            for state in _way(run_path, self._state_of(run_path), to):
                self._file.append(partial(_status_draft, run_path, state, data))
        if to in RUN_END:
            self._file.checkpoint()
        else:
            self._file.checkpoint_if_due()

    def assign_batch(self, batch_id: str, runs: Iterable[str], *, opened_at: str, closes_at: str) -> None:
        """The runs that one buffer window collected."""
        data = {"opened_at": opened_at, "closes_at": closes_at, "runs": list(runs)}
        self._file.append(lambda documents: Draft("batch_assigned", batch_id, data=data))
        self._file.checkpoint_if_due()

    def checkpoint(self) -> None:
        """Write the file. Raises `Fenced` when a later manager has written it."""
        self._file.checkpoint()

    def checkpoint_if_due(self) -> None:
        """Write the file if it is 50 events or 10 s behind; call it with a heartbeat."""
        self._file.checkpoint_if_due()

    def fold(self, keep_since: str, leave_since: str | None = None) -> int:
        """Fold the events into `state_events.jsonl` without those before `keep_since` (UTC); the objects removed.

        With `leave_since` a manager that this one replaced, and that follows the log, still finds out from it.
        """
        saved_seq = self.document["last_seq"]
        self.checkpoint()
        return self._journal.fold(keep_since, leave_since, saved_seq=saved_seq)

    def close(self) -> None:
        self.checkpoint()

    def _state_of(self, run_path: str) -> str | None:
        row = self.document["runs"].get(run_path)
        return None if row is None else str(row["status"])


def _status_draft(run_path: str, to: str, data: Mapping[str, Any], documents: Documents) -> Draft | None:
    row = documents[GLOBAL]["runs"].get(run_path)
    current = row and row["status"]
    if current == to:
        return None
    if not queue_may(current, to):
        raise IllegalTransition.of(run_path, current, to)
    return Draft("run_status", run_path, current, to, data)


_BETWEEN: tuple[RunState, ...] = ("pending", "queued", "running", "recovering")


def _way(run_path: str, current: str | None, to: str) -> list[str]:
    """The fewest states, the last one `to`, that lead there from `current`; none when it is the present state.

    No end lies in between: nobody saw the run end.
    """
    if to == current:
        return []
    ways: list[list[str]] = [[]]
    seen: set[str | None] = {current}
    while ways:
        way = ways.pop(0)
        last = way[-1] if way else current
        if queue_may(last, to):
            return [*way, to]
        following = [state for state in _BETWEEN if state not in seen and queue_may(last, state)]
        seen.update(following)
        ways += [[*way, state] for state in following]
    raise IllegalTransition.of(run_path, current, to)
