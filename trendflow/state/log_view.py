"""A process's view of one log: recovered from checkpoints and tail, then kept up to date by following and appending."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from trendflow.contracts.errors import TrendFlowError
from trendflow.state.checkpoints import Checkpoints
from trendflow.state.clock import Clock
from trendflow.state.documents import Documents
from trendflow.state.errors import damaged
from trendflow.state.events import Draft, Event
from trendflow.state.journal import Journal, LogPart
from trendflow.state.replay import Reducer
from trendflow.storage.retry import ContentionPolicy, exhausted


@dataclass(frozen=True)
class Writer:
    """Who appends: the fields of an event that its writer decides."""

    manager: str
    level: int
    epoch: Callable[[Documents], int]
    """Called before every claim with what the log says then; raises what keeps the writer from writing."""


@dataclass(frozen=True)
class Log:
    """One log with its checkpoints and its reducer."""

    journal: Journal
    checkpoints: Checkpoints
    nothing: Callable[[], Documents]
    """The documents before the first event."""
    apply: Reducer
    saved: Callable[[Checkpoints], Documents]
    """The checkpoints that recovery may start from, empty when there are none."""

    def recover(self) -> tuple[Documents, LogPart]:
        """The newest valid checkpoints with the tail applied, and that tail."""
        documents = self.saved(self.checkpoints) or self.nothing()
        reached = {document["last_seq"] for document in documents.values()}
        part = self.journal.read(max(min(reached), 1))
        # The event that a checkpoint ends with is read again: a file that leads the log, or ends with an event that
        # turned out to be torn, must not be believed.
        if not reached <= {0, *(event.seq for event in part.events)}:
            documents, part = self.nothing(), self.journal.read()
        for event in part.events:
            documents = self.apply(documents, event)
        return documents, part


class LogView:
    """What the log says, for all managers of one process. Safe for any number of threads."""

    def __init__(self, log: Log, clock: Clock, contention: ContentionPolicy | None = None) -> None:
        self._log, self._clock = log, clock
        self._contention = contention or ContentionPolicy(low=0.0, high=0.020)
        self._lock = threading.RLock()
        self._documents, self._end, self._torn = self._recovered()

    @property
    def documents(self) -> Documents:
        return self._documents

    @property
    def end(self) -> int:
        """Number of the last event."""
        return self._end

    @property
    def lock(self) -> threading.RLock:
        """Held while an event is appended; hold it to append several in a row."""
        return self._lock

    def follow(self) -> None:
        """Apply what others have written since."""
        with self._lock:
            while True:
                taken, event = self._log.journal.taken(self._end + 1)
                if not taken:
                    if self._log.journal.ends_with(self._end):
                        return
                    # What came after was folded, or the whole log removed.
                    self._documents, self._end, self._torn = self._recovered()
                    continue
                self._end += 1
                if event is None:
                    self._torn.append(self._end)
                elif not self._take(event):
                    self._documents, self._end, self._torn = self._recovered()

    def reopen(self) -> None:
        """Recover anew, from the checkpoints as they are now."""
        with self._lock:
            self._documents, self._end, self._torn = self._recovered()

    def append(self, writer: Writer, draft: Callable[[Documents], Draft | None]) -> Event | None:
        """Record what `draft` makes of the documents, under the next free number.

        `draft` is called again whenever another event was first, so it sees everything that precedes its own; it may
        return None (then nothing is written) and raises when the event is not legal any more. Raises
        `storage_unavailable` when the store does not answer or others kept winning for 30 s.
        """
        with self._lock:
            for _ in self._contention.attempts():
                epoch = writer.epoch(self._documents)
                torn = list(self._torn)
                made = Draft("recovered", writer.manager, data={"void": torn}) if torn else draft(self._documents)
                if made is None:
                    return None
                event = self._event(writer, epoch, made)
                if not self._log.journal.claim(event):
                    self.follow()
                    continue
                self._end = event.seq
                self._take(event)
                if not torn:
                    return event
            raise exhausted(TrendFlowError("storage_unavailable", "The log stayed contended for too long."))

    def _event(self, writer: Writer, epoch: int, draft: Draft) -> Event:
        return Event(
            seq=self._end + 1,
            event_id=uuid.uuid4().hex,
            ts=self._clock.utc(),
            level=writer.level,
            manager=writer.manager,
            epoch=epoch,
            type=draft.type,
            subject=draft.subject,
            source=draft.source,
            to=draft.to,
            data=dict(draft.data),
        )

    def _take(self, event: Event) -> bool:
        """Apply the event after the last one; False when it voids one that was applied here."""
        void = set(event.data["void"]) if event.type == "recovered" else set()
        if void - set(self._torn):
            return False
        self._torn = [seq for seq in self._torn if seq not in void]
        if self._torn:
            raise damaged(f"The event {self._torn[0]} of a log cannot be read, and events follow it.")
        self._documents = self._log.apply(self._documents, event)
        return True

    def _recovered(self) -> tuple[Documents, int, list[int]]:
        documents, part = self._log.recover()
        return documents, part.end, list(part.torn)
