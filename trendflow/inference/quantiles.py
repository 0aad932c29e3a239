"""Prediction intervals: quantile forecasts put in order and conformalised, the one path of training and inference.

Conformalised quantile regression (Romano, Patterson and Candès, NeurIPS 2019): the interval of two quantile models is
widened (or narrowed) by the empirical quantile of how far held-out outcomes lie outside it. For exchangeable rows the
result covers the nominal share at least.

The horizons of a target are forecast by models that know nothing of each other, but a count only grows. Their forecasts
are rearranged into ascending order (Chernozhukov, Fernández-Val and Galichon, Biometrika 2009): where the truth is
monotone, that brings an estimate no further from it, and a band that holds a growing curve at every horizon still does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trendflow.contracts.errors import TrendFlowError

LEVELS = (0.1, 0.5, 0.9)
NAMES = ("p10", "p50", "p90")
NOMINAL = 0.8
"""Share of outcomes that [p10, p90] is meant to hold."""
FLOOR = 0.0
"""Targets are log1p of a growth that is never negative."""
METHOD = "quantile loss, sorted, conformalised on val (CQR), rearranged over horizons"
"""What `serve` does, by name. A model whose intervals were tested under another rule promises something else."""


class Served(NamedTuple):
    """What is shown of the quantile models of one head, and what had to be put in order for it.

    `quantiles` float64 [rows, 3]: p10 ≤ p50 ≤ p90 on the log1p scale, no horizon below an earlier one. `crossed` bool
    [rows]: the quantile models contradicted each other. `rearranged` bool [rows]: the horizons did.
    """

    quantiles: np.ndarray
    crossed: np.ndarray
    rearranged: np.ndarray


def serve(raw: Sequence[np.ndarray], offsets: Sequence[float]) -> list[Served]:
    """Forecasts of the horizons of one target, early first: `raw` outputs [rows, 3] of each and its `conformal_offset`.

    Every row is treated alone, so neighbours change nothing.
    """
    floored = np.maximum(np.stack(raw), FLOOR)
    single = np.stack([conformalise(monotone(one), offset) for one, offset in zip(raw, offsets, strict=True)])
    # Sorted value by value: where p10 ≤ p50 ≤ p90 holds at every horizon, it holds afterwards.
    rising = np.sort(single, axis=0)
    crossed = (np.diff(floored, axis=2) < 0).any(axis=2)
    return [Served(*found) for found in zip(rising, crossed, (rising != single).any(axis=2), strict=True)]


def monotone(quantiles: np.ndarray) -> np.ndarray:
    """[rows, 3] in ascending order per row. Sorting never makes the pinball loss worse (Chernozhukov et al. 2010)."""
    return np.sort(np.maximum(quantiles, FLOOR), axis=1)


def conformal_offset(quantiles: np.ndarray, y: np.ndarray, nominal: float = NOMINAL) -> float:
    """The offset that makes [p10 − offset, p90 + offset] cover `nominal` of further exchangeable rows.

    `quantiles` [rows, 3] are monotone forecasts of rows that no model was fitted on, `y` [rows] their outcomes. Raises
    `input_constraint_violated` for fewer rows than the level needs, where only an infinite interval would be valid.
    """
    scores = np.maximum(quantiles[:, 0] - y, y - quantiles[:, 2])
    rank = math.ceil((len(scores) + 1) * nominal)
    if rank > len(scores):
        raise TrendFlowError(
            "input_constraint_violated", f"{len(scores)} rows are too few to calibrate an interval.", rows=len(scores)
        )
    return float(np.partition(scores, rank - 1)[rank - 1])


def conformalise(quantiles: np.ndarray, offset: float) -> np.ndarray:
    """Monotone forecasts [rows, 3] with the outer ones moved by `offset`; p50 stays and always lies between them."""
    low, middle, high = quantiles.T
    # A negative offset may cross the median; including it can only raise the coverage.
    moved = np.column_stack([np.minimum(low - offset, middle), middle, np.maximum(high + offset, middle)])
    return np.maximum(moved, FLOOR)
