"""The manager of one state file: its only writer while its epoch is in force."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trendflow.state.checkpoints import Checkpoints
from trendflow.state.clock import Clock
from trendflow.state.documents import Documents, epoch_of
from trendflow.state.errors import Fenced
from trendflow.state.events import Draft, Event
from trendflow.state.log_view import LogView, Writer

CHECKPOINT_EVENTS = 50
CHECKPOINT_SEC = 10.0

Allowed = Callable[[Documents], bool]


class FileManager:
    """Appends events under its epoch and keeps its file close behind the log.

    Of two managers of one file the later one wins: the earlier one finds out before its next event is written and
    raises `Fenced`, then and ever after.
    """

    def __init__(self, view: LogView, checkpoints: Checkpoints, clock: Clock, name: str, level: int) -> None:
        self.name = name
        self._view, self._checkpoints, self._clock = view, checkpoints, clock
        self._writer = Writer(name, level, self._require_force)
        self._epoch = 0
        self._saved_seq, self._saved_at = 0, clock.monotonic()

    def start(self, data: Mapping[str, Any], allowed: Allowed = lambda documents: True) -> bool:
        """Take over the file with the next epoch. False when `allowed` refuses what the log says at that point."""
        starting = Writer(self.name, self._writer.level, lambda documents: epoch_of(documents, self.name) + 1)
        draft = Draft("manager_started", self.name, data=data)
        event = self._view.append(starting, lambda documents: draft if allowed(documents) else None)
        if event is not None:
            self._epoch = event.epoch
        return event is not None

    def append(self, draft: Callable[[Documents], Draft | None]) -> Event | None:
        """Record one event; see `LogView.append`."""
        return self._view.append(self._writer, draft)

    def checkpoint_if_due(self) -> None:
        """Write the file if 50 events, or 10 s with any event, have passed since it was written."""
        behind = self._view.end - self._saved_seq
        if behind >= CHECKPOINT_EVENTS or (behind and self._clock.monotonic() - self._saved_at >= CHECKPOINT_SEC):
            self.checkpoint()

    def checkpoint(self) -> None:
        """Write the file as the log stands. Raises `Fenced` when a later manager has written it."""
        with self._view.lock:
            self._require_force(self._view.documents)
            document = self._view.documents[self.name]
        self._checkpoints.write(self.name, document)
        self._saved_seq, self._saved_at = document["last_seq"], self._clock.monotonic()

    def is_in_force(self, documents: Documents) -> bool:
        """True; raises `Fenced` when the log knows a later manager of the file."""
        return self._require_force(documents) > 0

    def _require_force(self, documents: Documents) -> int:
        current = epoch_of(documents, self.name)
        if current != self._epoch:
            raise Fenced.by(self.name, self._epoch, current)
        return self._epoch
