"""Numeric helpers of the charts: thinning, runs, ticks. Pure numpy, no drawing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

MAX_POINTS = 1000
_NO_SPAN = 1e-9
_TIME_STEPS = (0.5, 1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 300, 600, 1200)


def thin(x: np.ndarray, y: np.ndarray, max_points: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `max_points` of the curve, keeping both ends and every local extreme that can be seen.

    Splits the samples into equal buckets and keeps the smallest and the largest value of each, so global minimum and
    maximum survive exactly (min–max decimation). A bucket without a finite value leaves one NaN: the gap stays a gap.
    """
    n = len(y)
    if n <= max_points:
        return x, y
    edges = np.linspace(0, n, (max_points - 2) // 2 + 1).astype(np.int64)
    keep = {0, n - 1}
    for start, stop in itertools.pairwise(edges.tolist()):
        finite = np.flatnonzero(np.isfinite(y[start:stop]))
        if not finite.size:
            keep.add(int(start))
            continue
        values = y[start:stop][finite]
        keep.add(int(start + finite[np.argmin(values)]))
        keep.add(int(start + finite[np.argmax(values)]))
    index = np.array(sorted(keep))
    return x[index], y[index]


def finite_runs(y: np.ndarray) -> Iterator[slice]:
    """Slices of consecutive finite values."""
    finite = np.isfinite(y).astype(np.int8)
    steps = np.diff(np.concatenate([[0], finite, [0]]))
    for start, stop in zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True):
        yield slice(int(start), int(stop))


def value_range(*arrays: np.ndarray) -> tuple[float, float] | None:
    """Smallest and largest finite value over all arrays, or None when there is none."""
    finite = [array[np.isfinite(array)] for array in (np.asarray(a, dtype=np.float64).ravel() for a in arrays)]
    values = np.concatenate(finite) if finite else np.empty(0)
    return (float(values.min()), float(values.max())) if values.size else None


def covering(values: np.ndarray, span: tuple[float, float]) -> tuple[float, float] | None:
    """The range of the finite values, widened to hold `span`; None when there is no value."""
    found = value_range(values)
    return (min(found[0], span[0]), max(found[1], span[1])) if found else None


def nice_step(span: float, target: int) -> float:
    """The step of 1, 2 or 5 times a power of ten that cuts `span` into about `target` parts."""
    raw = span / max(1, target)
    power = 10.0 ** math.floor(math.log10(raw))
    for factor in (1, 2, 5, 10):
        if factor * power >= raw * (1 - 1e-9):
            return factor * power
    return 10 * power


def nice_range(low: float, high: float, target: int = 3) -> tuple[float, float, list[float]]:
    """Widen [low, high] to round numbers. Returns the new ends and the ticks between them, ends included.

    A span that is nothing but rounding noise counts as one value, which then stands in the middle.
    """
    if high - low <= max(_NO_SPAN, 1e-7 * max(abs(low), abs(high))):
        pad = abs(high) * 0.5 if abs(high) > _NO_SPAN else 1.0
        low, high = low - pad, high + pad
    step = nice_step(high - low, target)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(k * step, 12) for k in range(first, last + 1)]
    return ticks[0], ticks[-1], ticks


def time_ticks(duration: float, target: int = 10) -> list[float]:
    """Round clock times from 0 to `duration`, at most `target` + 1 of them."""
    step = next((s for s in _TIME_STEPS if duration / s <= target), _TIME_STEPS[-1])
    return [k * step for k in range(int(duration / step + 1e-9) + 1)]


def sample_edges(times: np.ndarray, duration: float) -> np.ndarray:
    """The `[N+1]` borders of the time cells that samples stand for: midpoints between neighbours, 0 and `duration`."""
    if not len(times):
        return np.zeros(0)
    middle = (times[1:] + times[:-1]) / 2
    return np.concatenate([[0.0], middle, [max(duration, float(times[-1]))]])


def spread(count: int, wanted: int) -> np.ndarray:
    """Positions of `wanted` evenly spread items out of `count`: the middle of each of `wanted` equal parts."""
    wanted = min(wanted, count)
    return ((np.arange(wanted) + 0.5) * count / max(1, wanted)).astype(np.int64)
