"""Rank correlations of features with what happened after the first snapshot: the net for a provenance that lies.

Two questions are asked of a feature x and a counter with value a at the first snapshot and b at the horizon. Is x the
target under another name: Spearman's correlation of x with the target? Does x know b beyond a: the partial rank
correlation of x and b given a (Kendall & Stuart, The Advanced Theory of Statistics, vol. 2, ch. 27)? A counter of the
first snapshot follows b closely, yet says nothing of it that a does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

_TINY = 1e-9


@dataclass(frozen=True)
class Outcome:
    """What became of one counter by one horizon, float64 [R] with NaN where unobserved.

    `target` is the target itself, `before` the counter at the first snapshot, `after` at the horizon.
    """

    name: str
    target: np.ndarray
    before: np.ndarray
    after: np.ndarray

    @property
    def observed(self) -> np.ndarray:
        """bool [R]"""
        return np.isfinite(self.target)


@dataclass(frozen=True)
class Correlation:
    """`with_target` and `beyond_first` are NaN where they are not defined; `n` is the number of rows behind both."""

    column: str
    outcome: str
    n: int
    with_target: float
    beyond_first: float


def correlations(
    features: Iterable[tuple[str, np.ndarray]], outcomes: list[Outcome], min_rows: int
) -> Iterator[Correlation]:
    """Both correlations of every feature [R] with every outcome that have at least `min_rows` rows in common.

    Several series may come under one name, as the elements of an embedding do.
    """
    usable = [np.isfinite(outcome.target + outcome.before + outcome.after) for outcome in outcomes]
    ranked: dict[tuple[int, bytes], _Ranked] = {}  # columns of one component miss the same rows
    for column, values in features:
        present = ~np.isnan(values)
        order = np.argsort(values, kind="stable")[: np.count_nonzero(present)]  # NaN comes last
        for at, outcome in enumerate(outcomes):
            common = usable[at] & present
            ascending = order[common[order]]
            if len(ascending) < min_rows:
                continue
            key = (at, np.packbits(common).tobytes())
            if key not in ranked:
                ranked[key] = _Ranked.of(outcome, np.flatnonzero(common))
            found = ranked[key]
            ranks = np.zeros(len(values))
            ranks[ascending] = _ranks_in_order(values[ascending])
            x = _standardised(ranks[found.rows])
            with_after = _product(x, found.after)
            yield Correlation(
                column,
                outcome.name,
                len(ascending),
                _product(x, found.target),
                _partial(with_after, _product(x, found.before), found.pair),
            )


@dataclass(frozen=True)
class _Ranked:
    """Standardised ranks of an outcome over the rows `rows`, and the correlation of before and after."""

    rows: np.ndarray
    target: np.ndarray | None
    before: np.ndarray | None
    after: np.ndarray | None
    pair: float

    @classmethod
    def of(cls, outcome: Outcome, rows: np.ndarray) -> _Ranked:
        parts = (outcome.target, outcome.before, outcome.after)
        target, before, after = (_standardised(ranks(part[rows])) for part in parts)
        return cls(rows, target, before, after, _product(before, after))


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks 1 … n of finite values, ties sharing their mean rank."""
    order = np.argsort(values, kind="stable")
    found = np.empty(len(values))
    found[order] = _ranks_in_order(values[order])
    return found


def _ranks_in_order(ascending: np.ndarray) -> np.ndarray:
    starts = np.flatnonzero(np.r_[True, ascending[1:] != ascending[:-1]])
    ends = np.r_[starts[1:], len(ascending)]
    return np.repeat((starts + ends + 1) / 2, ends - starts)


def _standardised(values: np.ndarray) -> np.ndarray | None:
    """Values with mean 0 and length 1; None for a constant."""
    centred = values - values.mean()
    length = float(np.sqrt(centred @ centred))
    return centred / length if length else None


def _product(first: np.ndarray | None, second: np.ndarray | None) -> float:
    return float("nan") if first is None or second is None else float(first @ second)


def _partial(with_after: float, with_before: float, pair: float) -> float:
    """Correlation of x and after given before; NaN where one of them is a function of before."""
    rest, of_pair = 1 - with_before**2, 1 - pair**2
    return (with_after - with_before * pair) / (rest * of_pair) ** 0.5 if rest > _TINY and of_pair > _TINY else np.nan
