"""The log: numbered event objects, each claimed by put-if-absent, and the export that they are folded into.

Numbers have no gaps. An event that cannot be read counts as absent while nothing readable follows it (a torn tail);
later it must be named by `recovered`, or the log is damaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.state.errors import damaged
from trendflow.state.events import Event, EventCodec
from trendflow.state.layout import event_key, event_number, events_folder, export_key
from trendflow.storage.object_store import ObjectNotFound, ObjectStore
from trendflow.storage.retry import ContentionPolicy, exhausted

_READERS = 8
# A log may be folded between its listing and the reading of its objects; then the next look finds it in the export.
_LOOKS = 5


@dataclass(frozen=True)
class LogPart:
    """A log from some number on."""

    events: Sequence[Event]
    end: int
    """Last number that is taken, 0 in an empty log."""
    torn: tuple[int, ...]
    """Numbers at the end that are taken and cannot be read."""


class Journal:
    """One log. Raises `artifact_validation_failed` for a damaged one."""

    def __init__(self, store: ObjectStore, folder: str, codec: EventCodec) -> None:
        self._store, self._folder, self._codec = store, folder, codec

    def claim(self, event: Event) -> bool:
        """Record the event under its number; False when another event has the number.

        Also when that one was folded since: its object is gone, so the store alone would let a writer that has been
        away write into the past, where nobody reads.
        """
        key = event_key(self._folder, event.seq)
        if not self._store.put_if_absent(key, self._codec.encode(event)):
            return False
        if self.ends_with(event.seq - 1):
            return True
        folded = self._folded(event.seq).get(event.seq)
        if folded is not None and folded.event_id == event.event_id:
            return True  # folded at once
        self._store.delete(key)
        return False

    def ends_with(self, seq: int) -> bool:
        """Whether the log ended with the number `seq` (0: was empty) before the number that is free after it.

        Objects are folded in their order. So while the one before is there, no later one was folded; when it is not,
        the export tells where the log ended.
        """
        if seq > 0 and self._store.exists(event_key(self._folder, seq)):
            return True
        return max(self._folded(1), default=0) == seq

    def taken(self, seq: int) -> tuple[bool, Event | None]:
        """Whether a number is taken, and its event unless that cannot be read."""
        try:
            data = self._store.get(event_key(self._folder, seq))
        except ObjectNotFound:
            return False, None
        return True, self._codec.decode(data, seq)

    def read(self, first: int = 1) -> LogPart:
        """The log from the number `first` on."""
        for _ in range(_LOOKS):
            numbers = self._numbers(first)
            folded = {} if numbers and numbers[0] == first else self._folded(first)
            end = max([*numbers, *folded], default=0)
            # A listing that another writer overtakes may miss a number that it has passed already.
            wanted = [seq for seq in range(first, end + 1) if seq not in folded and seq > max(folded, default=0)]
            with ThreadPoolExecutor(_READERS) as readers:
                found = dict(zip(wanted, readers.map(self.taken, wanted), strict=True))
            if all(taken for taken, _ in found.values()):
                events = {**folded, **{seq: event for seq, (_, event) in found.items() if event is not None}}
                return _checked(events, first, end)
        raise damaged("The log lacks an event.")

    def export(self, keep_since: str | None = None, saved_seq: int = 0) -> Sequence[Event]:
        """Write the events to `state_events.jsonl`, one canonical JSON per line. Returns what was written.

        `keep_since` (UTC) leaves older events out: the log is then no longer complete, and only checkpoints know what
        it began with. So those from `saved_seq` on, the number up to which the caller wrote one, stay in any case.
        """
        key, known = export_key(self._folder), saved_seq if keep_since is not None else 0
        for _ in ContentionPolicy().attempts():
            tag = self._export_tag()
            events = self.read(min(self._folded(1), default=1)).events
            if not events:
                return []
            kept = [event for event in events[:-1] if event.seq >= known or event.ts >= (keep_since or "")]
            kept.append(events[-1])
            data = b"".join(canonical_json(event.as_dict()) + b"\n" for event in kept)
            # What somebody else left out since, because a video was deleted, must not come back.
            if self._store.put_if_absent(key, data) if tag is None else self._store.put_if_match(key, data, tag):
                return kept
        raise exhausted(TrendFlowError("storage_unavailable", "The export of a log stayed contended for too long."))

    def _export_tag(self) -> str | None:
        try:
            return self._store.get_with_etag(export_key(self._folder))[1]
        except ObjectNotFound:
            return None

    def fold(self, keep_since: str | None = None, leave_since: str | None = None, *, saved_seq: int = 0) -> int:
        """Export, then remove the event objects that the export replaces; returns how many there were.

        Objects of events from `leave_since` (UTC) on are left for those who follow the log number by number.
        """
        end = max((event.seq for event in self.export(keep_since, saved_seq)), default=0)
        recent = (
            () if leave_since is None else (seq for seq, event in self._folded(1).items() if event.ts >= leave_since)
        )
        left = min(recent, default=end + 1)
        gone = [seq for seq in self._numbers(1) if seq <= end and seq < left]
        # The first ones first: what is left after a crash still ends where the log ends.
        return sum(self._store.delete(event_key(self._folder, seq)) for seq in gone)

    def _numbers(self, first: int) -> list[int]:
        # A deployment's log has tens of thousands of objects until it is folded, and is read from near its end.
        after = event_key(self._folder, first - 1) if first > 1 else None
        listed = (event_number(info.key) for info in self._store.list(events_folder(self._folder), after=after))
        return sorted(seq for seq in listed if seq is not None and seq >= first)

    def _folded(self, first: int) -> dict[int, Event]:
        try:
            data = self._store.get(export_key(self._folder))
        except ObjectNotFound:
            return {}
        return {event.seq: event for event in parse_export(data, self._codec) if event.seq >= first}


def parse_export(data: bytes, codec: EventCodec) -> list[Event]:
    """Events of a `state_events.jsonl`. A last line that does not parse is dropped, any other one raises."""
    lines = data.split(b"\n")
    events = [codec.decode(line) for line in lines if line]
    if events and events[-1] is None:
        events.pop()
    whole = [event for event in events if event is not None]
    if len(whole) < len(events):
        raise damaged("The export of a log holds a line that is no event.")
    return whole


def _checked(events: Mapping[int, Event], first: int, end: int) -> LogPart:
    readable = sorted(events)
    last = readable[-1] if readable else first - 1
    void = {seq for event in events.values() if event.type == "recovered" for seq in event.data["void"]}
    missing = set(range(first, last)) - set(readable) - void
    if missing:
        raise damaged(f"The event {min(missing)} of a log cannot be read, and events follow it.")
    return LogPart([events[seq] for seq in readable], end, tuple(range(last + 1, end + 1)))
