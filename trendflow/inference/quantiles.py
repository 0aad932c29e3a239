"""Prediction intervals: quantile forecasts put in order and conformalised, the one path of training and inference.

Conformalised quantile regression (Romano, Patterson and Candès, NeurIPS 2019): the interval of two quantile models is
widened (or narrowed) by the empirical quantile of how far held-out outcomes lie outside it. For exchangeable rows the
result covers the nominal share at least.

The horizons of a target are forecast by models that know nothing of each other, but a count only grows. Their forecasts
are rearranged into ascending order (Chernozhukov, Fernández-Val and Galichon, Biometrika 2009): where the truth is
monotone, that brings an estimate no further from it.

The order of the steps carries the promise. An offset belongs to the forecasts it was measured on, so rearranging comes
first, on held-out rows as on new ones. The offsets differ between horizons and may break the order again; the step that
restores it only widens: a lower end sinks to that of any later horizon, an upper end rises to that of any earlier one.
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
METHOD = "quantile loss, rearranged over levels and horizons, conformalised on val (CQR), widened until monotone"
"""What `serve` does, by name. A model whose intervals were tested under another rule promises something else."""


class Ordered(NamedTuple):
    """Raw forecasts of the horizons of one target in ascending order, and where they were not.

    `quantiles` float64 [horizons, rows, 3] ≥ 0: ascending in level and in horizon. `crossed` bool [horizons, rows]: the
    quantile models contradicted each other. `rearranged` bool [horizons, rows]: the horizons did.
    """

    quantiles: np.ndarray
    crossed: np.ndarray
    rearranged: np.ndarray


class Served(NamedTuple):
    """What is shown of the quantile models of one head, and what had to be put in order for it.

    `quantiles` float64 [rows, 3]: p10 ≤ p50 ≤ p90 on the log1p scale, no horizon below an earlier one. `crossed` and
    `rearranged` bool [rows] as in `Ordered`.
    """

    quantiles: np.ndarray
    crossed: np.ndarray
    rearranged: np.ndarray


def put_in_order(raw: Sequence[np.ndarray]) -> Ordered:
    """`raw` outputs [rows, 3] per horizon of one target, early first, with levels and horizons sorted, from `FLOOR` up.

    Every row is treated alone, so neighbours change nothing. Sorting never makes the pinball loss worse (Chernozhukov
    et al. 2010).
    """
    floored = np.maximum(np.stack(raw), FLOOR)
    levels = np.sort(floored, axis=2)
    # Sorted value by value: where p10 ≤ p50 ≤ p90 holds at every horizon, it holds afterwards.
    rising = np.sort(levels, axis=0)
    return Ordered(rising, (levels != floored).any(axis=2), (rising != levels).any(axis=2))


def serve(raw: Sequence[np.ndarray], offsets: Sequence[float]) -> list[Served]:
    """Forecasts of the horizons of one target, early first: `raw` as in `put_in_order`, and each one's offset.

    An offset is the `conformal_offset` of forecasts of the same horizons that `put_in_order` gave.
    """
    ordered = put_in_order(raw)
    made = np.stack([conformalise(one, offset) for one, offset in zip(ordered.quantiles, offsets, strict=True)])
    made[:, :, 0] = np.minimum.accumulate(made[::-1, :, 0])[::-1]
    made[:, :, 2] = np.maximum.accumulate(made[:, :, 2])
    return [Served(*found) for found in zip(made, ordered.crossed, ordered.rearranged, strict=True)]


def conformal_offset(quantiles: np.ndarray, y: np.ndarray, nominal: float = NOMINAL) -> float:
    """The offset that makes [p10 − offset, p90 + offset] cover `nominal` of further exchangeable rows.

    `quantiles` [rows, 3] are ordered forecasts of rows that no model was fitted on, `y` [rows] their outcomes. Raises
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
    """Ordered forecasts [rows, 3] with the outer ones moved by `offset`; p50 stays and always lies between them."""
    low, middle, high = quantiles.T
    # A negative offset may cross the median; including it can only raise the coverage.
    moved = np.column_stack([np.minimum(low - offset, middle), middle, np.maximum(high + offset, middle)])
    return np.maximum(moved, FLOOR)
