"""Events that the dense signals alone decide: flashes, hard cuts and fades."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from trendflow.components.visual._cut_constants import CUTS
from trendflow.components.visual._cut_score import DenseSignals, neighbourhood_mean


class EventType(IntEnum):
    """`event_type_id`; categorical."""

    HARD_CUT = 0
    FADE_IN = 1
    FADE_OUT = 2
    DISSOLVE = 3
    WHIP_PAN = 4
    ZOOM = 5
    FLASH = 6


@dataclass(frozen=True)
class Event:
    """Something that happens between source frames `start_frame` and `end_frame`, both included.

    `frame` and `time_s` locate it: for a cut the first frame of the new shot, for a gradual change its centre.
    """

    type: EventType
    frame: int
    time_s: float
    start_frame: int
    end_frame: int
    start_s: float
    end_s: float
    strength: float

    def overlaps(self, other: Event) -> bool:
        return self.start_frame <= other.end_frame and other.start_frame <= self.end_frame


def gradual_event(kind: EventType, dense: DenseSignals, start: int, end: int, strength: float) -> Event:
    """An event from frame `start` to frame `end`, located at the first frame at or after its centre.

    Method: a fade, dissolve, pan or zoom is located at the first source frame at or after the middle between its start
    and its end.
    """
    start_s, end_s = float(dense.t[start]), float(dense.t[end])
    frame = dense.frame_at((start_s + end_s) / 2)
    return Event(kind, frame, float(dense.t[frame]), start, end, start_s, end_s, float(np.clip(strength, 0.0, 1.0)))


def find_flashes(dense: DenseSignals) -> list[Event]:
    """Two luma steps of opposite sign within `flash_max_s` that cancel each other; never a boundary.

    Method: a flash begins where luma_mean changes by at least `flash_step` and ends with an opposite change of at least
    that within `flash_max_s`, after which luma is within `flash_net_change` of the frame before the flash. It is
    located at its start; its strength is the largest distance in between from the luma before.
    """
    step = np.diff(dense.luma, prepend=dense.luma[0])
    large = np.flatnonzero(np.abs(step) >= CUTS.flash_step)
    found: list[Event] = []
    taken = -1
    for position, up in enumerate(large):
        if up <= taken:
            continue
        for down in large[position + 1 :]:
            if dense.t[down] - dense.t[up] > CUTS.flash_max_s + 1e-9:
                break
            net = abs(dense.luma[down] - dense.luma[up - 1])
            if step[up] * step[down] < 0 and net <= CUTS.flash_net_change:
                inside = dense.luma[up:down]
                height = float(np.max(np.abs(inside - dense.luma[up - 1])))
                start_s, end_s = float(dense.t[up]), float(dense.t[down])
                found.append(
                    Event(EventType.FLASH, int(up), start_s, int(up), int(down), start_s, end_s, min(1.0, height))
                )
                taken = int(down)
                break
    return found


def hard_cut_candidates(dense: DenseSignals, flashes: Sequence[Event]) -> np.ndarray:
    """Frames that begin a new shot by the score rule: strong, far above their neighbourhood, locally maximal.

    Frames of a flash and pairs with a damaged frame neither are candidates nor hide one.

    Method: a source frame begins a shot (hard cut) if its cut_score is at least `hard_cut_score`, at least
    `hard_cut_ratio` times the mean score around it, and the largest within ±`cut_separation_s` (of equals the first).
    The mean is that of the other pairs within ±`neighbourhood_s`, at least `neighbourhood_pairs` to each side, and no
    less than `hard_cut_floor`. Pairs with a damaged frame and those from the start to the end of a flash count as 0.
    """
    score = np.nan_to_num(dense.score)
    score[excluded_pairs(dense, flashes)] = 0.0
    background = np.maximum(neighbourhood_mean(score, dense.t), CUTS.hard_cut_floor)
    strong = np.flatnonzero((score >= CUTS.hard_cut_score) & (score >= CUTS.hard_cut_ratio * background))
    return np.array([j for j in strong.tolist() if _is_local_maximum(score, dense.t, j)], dtype=np.int64)


def excluded_pairs(dense: DenseSignals, flashes: Sequence[Event]) -> np.ndarray:
    """Pairs `[F]` that cannot be a cut: one of the two frames is damaged, or a flash is in progress."""
    excluded = dense.corrupt.copy()
    excluded[1:] |= dense.corrupt[:-1]
    for flash in flashes:
        excluded[flash.start_frame : flash.end_frame + 1] = True
    return excluded


def _is_local_maximum(score: np.ndarray, t: np.ndarray, j: int) -> bool:
    first = int(np.searchsorted(t, t[j] - CUTS.cut_separation_s - 1e-9))
    last = int(np.searchsorted(t, t[j] + CUTS.cut_separation_s + 1e-9, side="right"))
    # The earliest of equal scores wins, so two equal neighbours give one cut.
    return bool(first + np.argmax(score[first:last]) == j)


def hard_cut_events(dense: DenseSignals, frames: np.ndarray) -> list[Event]:
    return [
        Event(
            EventType.HARD_CUT,
            int(j),
            float(dense.t[j]),
            int(j),
            int(j),
            float(dense.t[j]),
            float(dense.t[j]),
            float(dense.score[j]),
        )
        for j in frames
    ]


def find_fades(dense: DenseSignals, cuts: np.ndarray) -> list[Event]:
    """Monotone changes of luma from or to black that hold no hard cut.

    Monotone means: it never falls back by more than `luma_tolerance` in total. A tolerance per step would let a
    slow change in either direction pass as a rise.

    Method: `luma_mean` is split where it turns back by more than `luma_tolerance`. A part without hard cut that changes
    by at least `fade_min_change` and whose darker end is at most `fade_black_luma` is a fade; its strength is that
    change. It starts with the last frame within `luma_tolerance` of its first luma and ends with the first one within
    that of its last, and must last `fade_min_s` and `fade_min_frames`.
    """
    found: list[Event] = []
    for first, last in monotone_legs(dense.luma, CUTS.luma_tolerance):
        low, high = dense.luma[first], dense.luma[last]
        if min(low, high) > CUTS.fade_black_luma or abs(high - low) < CUTS.fade_min_change:
            continue
        start, end = _trim(dense.luma, first, last)
        lasts = end - start + 1 >= CUTS.fade_min_frames and dense.t[end] - dense.t[start] >= CUTS.fade_min_s - 1e-9
        if lasts and not np.any((cuts > start) & (cuts <= end)):
            kind = EventType.FADE_IN if high > low else EventType.FADE_OUT
            found.append(gradual_event(kind, dense, start, end, abs(high - low)))
    return found


def monotone_legs(values: np.ndarray, tolerance: float) -> list[tuple[int, int]]:
    """Split a curve at its turning points: index pairs (start, end) between extremes more than `tolerance` apart.

    Inside a leg the curve never turns back by more than `tolerance`.
    """
    pivots: list[int] = []
    low = high = 0
    direction = 0
    for i, value in enumerate(values.tolist()):
        if direction >= 0 and value > values[high]:
            high = i
        if direction <= 0 and value < values[low]:
            low = i
        if direction >= 0 and values[high] - value > tolerance:
            pivots.append(high)
            direction, low = -1, i
        elif direction <= 0 and value - values[low] > tolerance:
            pivots.append(low)
            direction, high = 1, i
    if direction:
        pivots.append(high if direction > 0 else low)
    return list(itertools.pairwise(pivots))


def _trim(luma: np.ndarray, first: int, last: int) -> tuple[int, int]:
    """Leave out the still parts at both ends of a leg: black before a fade-in belongs to no transition."""
    rising = luma[last] > luma[first]
    leg = luma[first : last + 1] if rising else -luma[first : last + 1]
    start = int(np.flatnonzero(leg <= leg[0] + CUTS.luma_tolerance)[-1])
    end = start + int(np.flatnonzero(leg[start:] >= leg[-1] - CUTS.luma_tolerance)[0])
    return first + start, first + end
