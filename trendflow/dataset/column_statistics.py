"""Statistics of one column over many runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trendflow.contracts.schema_arrays import ROUNDING
from trendflow.contracts.schema_types import Bounds

SKETCH_POINTS = 201
"""Order statistics that stand for a sample; a distribution function read from them is wrong by 1/402 at most."""


@dataclass(frozen=True)
class ColumnStatistics:
    """What a column holds. Rates are shares of `n_rows`, everything else rests on the `n` finite values.

    NaN where nothing was measured. `std` is that of the population, NaN for one value.
    """

    n_rows: int
    n: int
    nan_rate: float
    inf_rate: float
    n_unique: int
    top_value: float
    top_value_share: float
    mean: float
    std: float
    p01: float
    p50: float
    p99: float
    out_of_range_rate: float
    sketch: np.ndarray
    """Sorted values float64, all of them up to `SKETCH_POINTS`, else that many order statistics."""

    @property
    def spread(self) -> float:
        """(p99 − p01) relative to the larger of the two, NaN when both are zero."""
        largest = max(abs(self.p01), abs(self.p99))
        return (self.p99 - self.p01) / largest if largest > 0 else float("nan")


def column_statistics(values: np.ndarray, bounds: Bounds = (None, None)) -> ColumnStatistics:
    """Statistics of `values` float [R]. Values beyond `bounds` by more than float32 rounding are out of range."""
    values = np.asarray(values, dtype=np.float64)
    finite = np.sort(values[np.isfinite(values)])
    rows, n = len(values), len(finite)
    rate = 1 / rows if rows else float("nan")
    nan_rate, inf_rate = np.isnan(values).sum() * rate, np.isinf(values).sum() * rate
    if n == 0:
        none = float("nan")
        return ColumnStatistics(
            rows, 0, float(nan_rate), float(inf_rate), 0, none, none, none, none, none, none, none, 0.0, finite
        )
    unique, counts = np.unique(finite, return_counts=True)
    p01, p50, p99 = np.percentile(finite, (1, 50, 99))
    top = int(np.argmax(counts))
    return ColumnStatistics(
        n_rows=rows,
        n=n,
        nan_rate=float(nan_rate),
        inf_rate=float(inf_rate),
        n_unique=len(unique),
        top_value=float(unique[top]),
        top_value_share=float(counts[top] / n),
        mean=float(finite.mean()),
        std=float(finite.std()) if n > 1 else float("nan"),
        p01=float(p01),
        p50=float(p50),
        p99=float(p99),
        out_of_range_rate=float(out_of_range(finite, bounds).sum() * rate),
        sketch=sketch(finite),
    )


def out_of_range(values: np.ndarray, bounds: Bounds) -> np.ndarray:
    """bool, of the shape of `values`: which lie beyond `bounds`, with the tolerance artifacts are validated with."""
    low, high = bounds
    outside = np.zeros(values.shape, dtype=bool)
    if low is not None:
        outside |= values < low - ROUNDING * max(1.0, abs(low))
    if high is not None:
        outside |= values > high + ROUNDING * max(1.0, abs(high))
    return outside


def sketch(ordered: np.ndarray) -> np.ndarray:
    """At most `SKETCH_POINTS` order statistics of sorted values, each standing for an equal share of them."""
    n = len(ordered)
    if n <= SKETCH_POINTS:
        return ordered
    return ordered[np.floor((np.arange(SKETCH_POINTS) + 0.5) / SKETCH_POINTS * n).astype(int)]
