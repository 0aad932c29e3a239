"""Prediction intervals: quantile forecasts made monotone and conformalised.

Conformalised quantile regression (Romano, Patterson and Candès, NeurIPS 2019): the interval of two quantile models is
widened (or narrowed) by the empirical quantile of how far held-out outcomes lie outside it. For exchangeable rows the
result covers the nominal share at least.
"""

from __future__ import annotations

import math

import numpy as np

from trendflow.contracts.errors import TrendFlowError

LEVELS = (0.1, 0.5, 0.9)
NAMES = ("p10", "p50", "p90")
NOMINAL = 0.8
"""Share of outcomes that [p10, p90] is meant to hold."""
FLOOR = 0.0
"""Targets are log1p of a growth that is never negative."""


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
