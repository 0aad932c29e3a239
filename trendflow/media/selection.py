"""Matches decoded frames to the frames the sampling plan asked for, while they stream by."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Chosen(Generic[T]):
    """A decoded frame that serves one slot of the union. `number` counts decoded frames from 0."""

    slot: int
    number: int
    frame: T


@dataclass(frozen=True)
class _Spare(Generic[T]):
    position: int
    number: int
    frame: T


class FrameSelector(Generic[T]):
    """Picks the wanted frames in one pass and in display order.

    `expected` holds the raw ticks of the packets in display order (None where missing), `wanted` the increasing
    positions in it that are to be kept: slot k of the union is `wanted[k]`. A wanted frame that never arrives is
    replaced by the nearest unused decoded frame: the latest one before it, or the next one after it. No more than one
    unused frame is held back.
    """

    def __init__(self, expected: Sequence[int | None], wanted: Sequence[int]) -> None:
        self._wanted = list(wanted)
        self._next = 0
        self._owed: deque[int] = deque()
        self._spare: _Spare[T] | None = None
        self._last_position = -1
        # First unmatched position per tick; equal ticks, which are rare, are chained to their next position.
        self._first: dict[int | None, int] = {}
        self._following: dict[int, int] = {}
        for position in range(len(expected) - 1, -1, -1):
            tick = expected[position]
            if tick in self._first:
                self._following[position] = self._first[tick]
            self._first[tick] = position

    def push(self, number: int, tick: int | None, frame: T) -> list[Chosen[T]]:
        """The next decoded frame; returns what can be stored now, in display order."""
        position = self._match(tick)
        known = position > self._last_position
        position = max(position, self._last_position)
        self._last_position = position
        while self._next < len(self._wanted) and self._wanted[self._next] < position:
            self._owed.append(self._next)
            self._next += 1
        if known and self._next < len(self._wanted) and self._wanted[self._next] == position:
            # This frame has its own slot, so the first free one can only be the frame after it.
            chosen = self._from_spare(position + 1)
            chosen.append(Chosen(self._next, number, frame))
            self._next += 1
            self._spare = None
            return chosen
        chosen = self._from_spare(position)
        if self._owed:
            chosen.append(Chosen(self._owed.popleft(), number, frame))
            self._spare = None
        else:
            self._spare = _Spare(position, number, frame)
        return chosen

    def finish(self) -> list[Chosen[T]]:
        """After the last frame: what can still be served. Slots that never appear had no frame left."""
        self._owed.extend(range(self._next, len(self._wanted)))
        self._next = len(self._wanted)
        return self._from_spare(None)

    def _match(self, tick: int | None) -> int:
        """Position of a decoded frame in the expected order; −1 for a frame nobody expected."""
        while (position := self._first.pop(tick, -1)) >= 0:
            if position in self._following:
                self._first[tick] = self._following.pop(position)
            if position > self._last_position:
                return position
        return -1

    def _from_spare(self, next_free: int | None) -> list[Chosen[T]]:
        """Serve the oldest owed slot with the held frame if that is nearer than the next free position."""
        if not self._owed or self._spare is None:
            return []
        missing = self._wanted[self._owed[0]]
        if next_free is not None and missing - self._spare.position > next_free - missing:
            return []
        chosen = Chosen(self._owed.popleft(), self._spare.number, self._spare.frame)
        self._spare = None
        return [chosen]
