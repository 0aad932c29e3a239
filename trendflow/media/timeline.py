"""The time axis of a video: repair of damaged timestamps and everything derived from good ones."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from trendflow.contracts.errors import TrendFlowError

_VFR_DEVIATION = 0.25
_VFR_SHARE = 0.01


@dataclass(frozen=True)
class Timeline:
    """Strictly increasing presentation times of frames in display order.

    `ticks` int64 `[F]` in units of `time_base` seconds; `repaired` counts the timestamps that had to be interpolated.
    """

    ticks: np.ndarray
    time_base: Fraction
    repaired: int
    last_duration_ticks: float

    @property
    def times(self) -> np.ndarray:
        """float64 `[F]` seconds since the first frame: `(pts − pts_first) · time_base`."""
        return (self.ticks - self.ticks[0]) * (self.time_base.numerator / self.time_base.denominator)

    @property
    def start_sec(self) -> float:
        return float(self.ticks[0] * self.time_base)

    @property
    def duration_sec(self) -> float:
        """Time of the last frame plus its duration."""
        span = int(self.ticks[-1] - self.ticks[0]) + self.last_duration_ticks
        return span * self.time_base.numerator / self.time_base.denominator

    @property
    def frame_rate(self) -> float:
        """Average rate in frames per second; 0 for a single frame of unknown duration."""
        span = Fraction(int(self.ticks[-1] - self.ticks[0])) + Fraction(self.last_duration_ticks)
        return float(len(self.ticks) / (span * self.time_base)) if span else 0.0

    @property
    def is_vfr(self) -> bool:
        """More than 1 % of the intervals differ from the median interval by more than 25 %."""
        intervals = np.diff(self.ticks)
        if len(intervals) == 0:
            return False
        median = float(np.median(intervals))
        return bool(np.mean(np.abs(intervals - median) > _VFR_DEVIATION * median) > _VFR_SHARE)


def build_timeline(
    raw: Sequence[int | None], time_base: Fraction, last_duration: int | None, max_bad_ratio: float
) -> Timeline:
    """Timeline of frames in display order from their raw ticks (None where missing).

    `last_duration` is the last frame's duration in ticks; unknown or zero means the median frame interval. Raises
    `video_file_corrupted` when more than `max_bad_ratio` of the timestamps are missing, equal or falling, or when too
    few are good to interpolate from.
    """
    good = _longest_increasing(raw)
    bad = len(raw) - len(good)
    if not good or (bad and len(good) < 2) or bad > max_bad_ratio * len(raw):
        raise TrendFlowError(
            "video_file_corrupted",
            "Too many frame timestamps are missing, equal or falling.",
            frames=len(raw),
            bad_timestamps=bad,
        )
    ticks = _interpolate(raw, good) if bad else np.array(raw, dtype=np.int64)
    if last_duration is not None and last_duration > 0:
        tail = float(last_duration)
    else:
        tail = float(np.median(np.diff(ticks))) if len(ticks) > 1 else 0.0
    return Timeline(ticks, time_base, bad, tail)


def _longest_increasing(raw: Sequence[int | None]) -> list[int]:
    """Positions of a longest strictly increasing subsequence (patience sorting).

    Everything outside it is offending. A plain comparison with the predecessor would blame all frames that follow one
    timestamp that is too late, instead of that one.
    """
    tails: list[int] = []
    tail_positions: list[int] = []
    previous = [-1] * len(raw)
    for position, tick in enumerate(raw):
        if tick is None:
            continue
        slot = bisect_left(tails, tick)
        if slot < len(tails) and tails[slot] == tick:
            continue  # of two equal timestamps the later frame is the offender
        previous[position] = tail_positions[slot - 1] if slot else -1
        if slot == len(tails):
            tails.append(tick)
            tail_positions.append(position)
        else:
            tails[slot] = tick
            tail_positions[slot] = position
    chain: list[int] = []
    position = tail_positions[-1] if tail_positions else -1
    while position >= 0:
        chain.append(position)
        position = previous[position]
    return chain[::-1]


def _interpolate(raw: Sequence[int | None], good: list[int]) -> np.ndarray:
    """Ticks with every offending one placed evenly between its good neighbours, or at the median interval outside."""
    anchors = [good[0]]
    for position in good[1:]:
        # Whole ticks between two anchors must leave room for the frames in between; an anchor without room goes too.
        if _tick(raw, position) - _tick(raw, anchors[-1]) >= position - anchors[-1]:
            anchors.append(position)
    known = np.array([_tick(raw, position) for position in anchors], dtype=np.int64)
    steps = np.diff(known) / np.diff(anchors) if len(anchors) > 1 else np.array([1.0])
    step = max(1, round(float(np.median(steps))))
    ticks = np.empty(len(raw), dtype=np.int64)
    first, last = anchors[0], anchors[-1]
    ticks[:first] = known[0] - step * np.arange(first, 0, -1)
    ticks[last:] = known[-1] + step * np.arange(len(raw) - last)
    for left, right in pairwise(anchors):
        start, stop = _tick(raw, left), _tick(raw, right)
        offsets = np.arange(right - left, dtype=np.int64)
        ticks[left:right] = start + offsets * (stop - start) // (right - left)
    return ticks


def _tick(raw: Sequence[int | None], position: int) -> int:
    tick = raw[position]
    assert tick is not None  # anchors come from the increasing subsequence, which has no missing ticks
    return tick
