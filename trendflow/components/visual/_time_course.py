"""How values are distributed over the length of a video."""

from __future__ import annotations

import numpy as np

from trendflow.components.visual import _summary


def part_of(times_s: np.ndarray, duration_s: float, parts: int) -> np.ndarray:
    """Which of `parts` equal parts of [0, D] each time lies in, 0-based; a time on a border opens the later part."""
    return np.clip(np.floor(parts * times_s / duration_s).astype(np.int64), 0, parts - 1)


def part_means(values: np.ndarray, times_s: np.ndarray, duration_s: float, parts: int) -> list[float]:
    """Mean of the finite values in each part; NaN for a part without any."""
    part = part_of(times_s, duration_s, parts)
    return [_summary.mean(values[part == number]) for number in range(parts)]


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """Least-squares slope of y on x over rows where both are finite; NaN for fewer than two different x."""
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite].astype(np.float64), y[finite].astype(np.float64)
    if len(x) < 2:
        return float("nan")
    centred = x - x.mean()
    spread = float(centred @ centred)
    return float(centred @ y) / spread if spread > 0 else float("nan")
