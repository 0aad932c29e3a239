"""Pairs of columns that say the same: Pearson for copies by scale and offset, Spearman for any monotone copy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BLOCK = 8192  # rows per matrix product, which bounds the memory of the intermediate copies

_SCREEN = 0.8
"""Rank correlation of whole columns below which a pair is not examined on its common rows alone.

Where rows are missing, ranks among all values of a column are not those among the common rows, and a perfect pair may
look weaker. Where none is missing the two are the same.
"""


@dataclass(frozen=True)
class Pair:
    """Two columns, by position, with their correlations over the `n` rows that have both."""

    first: int
    second: int
    n: int
    pearson: float
    spearman: float

    @property
    def strength(self) -> float:
        """The larger of the two, without sign."""
        return float(np.nanmax([abs(self.pearson), abs(self.spearman)]))


def duplicate_pairs(values: np.ndarray, threshold: float, least_rows: int) -> list[Pair]:
    """Pairs of the columns of `values` [R,C] with |Pearson| or |Spearman| ≥ `threshold`, strongest first.

    Correlations rest on the rows where both are finite. In at least `least_rows` of these each column must differ from
    its most frequent value: of an event that is absent from all videos but one, nothing can be learnt. A constant
    column has no correlation.
    """
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values)
    linear, n = _correlations(_standardised(values, finite), finite)
    ranked, _ = _correlations(_standardised(_ranks(values, finite), finite), finite)
    # A margin below the threshold: products of large sums round.
    wanted = (np.abs(linear) >= threshold - 1e-6) | (np.abs(ranked) >= min(_SCREEN, threshold))
    wanted &= n >= max(least_rows, 2)
    found = [_examine(values, finite, int(a), int(b), least_rows) for a, b in np.argwhere(np.triu(wanted, k=1))]
    kept = [pair for pair in found if pair is not None and pair.strength >= threshold]
    return sorted(kept, key=lambda pair: (-pair.strength, pair.first, pair.second))


def _examine(values: np.ndarray, finite: np.ndarray, first: int, second: int, least_rows: int) -> Pair | None:
    """The exact correlations of one pair; None when a column is (nearly) constant over the common rows."""
    common = finite[:, first] & finite[:, second]
    x, y = values[common, first], values[common, second]
    if min(_unusual(x), _unusual(y)) < least_rows:
        return None
    return Pair(first, second, int(common.sum()), _pearson(x, y), _pearson(_average_ranks(x), _average_ranks(y)))


def _unusual(x: np.ndarray) -> int:
    """How many values are not the most frequent one."""
    return len(x) - int(np.unique(x, return_counts=True)[1].max())


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    # Scaled first: squares of values like 1e-200 or 1e200 leave the range of a float.
    x, y = (part / np.abs(part).max() for part in (x - x.mean(), y - y.mean()))
    return float(np.clip((x @ y) / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))


def _average_ranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 1, float64 [n]; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _ranks(values: np.ndarray, finite: np.ndarray) -> np.ndarray:
    ranks = np.full(values.shape, np.nan)
    for column in range(values.shape[1]):
        rows = finite[:, column]
        ranks[rows, column] = _average_ranks(values[rows, column])
    return ranks


def _standardised(values: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and deviation 1, and 0 where nothing was measured: sums over them do not cancel."""
    known = np.where(finite, values, 0.0)
    counts = np.maximum(finite.sum(axis=0), 1)
    centred = np.where(finite, known - known.sum(axis=0) / counts, 0.0)
    largest = np.abs(centred).max(axis=0, initial=0.0)
    centred /= np.where(largest > 0, largest, 1.0)
    deviation = np.sqrt((centred**2).sum(axis=0) / counts)
    return np.asarray(centred / np.where(deviation > 0, deviation, 1.0))


def _correlations(z: np.ndarray, finite: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pearson [C,C] over the rows that both columns have, and their number [C,C]; NaN where one is constant."""
    size = z.shape[1]
    n, sums, squares, products = (np.zeros((size, size)) for _ in range(4))
    for start in range(0, len(z), _BLOCK):
        part, mask = z[start : start + _BLOCK], finite[start : start + _BLOCK].astype(np.float64)
        n += mask.T @ mask
        sums += part.T @ mask  # [a, b]: sum of column a over the rows that b has too
        squares += (part**2).T @ mask
        products += part.T @ part
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = squares - sums**2 / n
        spread = np.sqrt(np.where(variance > 1e-12 * n, variance, np.nan))
        return (products - sums * sums.T / n) / (spread * spread.T), n
