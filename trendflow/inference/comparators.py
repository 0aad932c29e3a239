"""Forecasts without learning, or with a straight line: what every model is shown beside.

All are on the scale of the targets, log1p of the growth since the first snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from trendflow.inference.encoding import numeric_column
from trendflow.inference.quantiles import FLOOR

_HOURS_PER_DAY = 24.0
_MIN_AGE_DAYS = 1 / 24


def velocity(x0: np.ndarray, age_hours: np.ndarray, horizon_days: int) -> np.ndarray:
    """The growth if the counter kept the mean speed of its life so far; an age below one hour counts as one."""
    days = np.maximum(age_hours / _HOURS_PER_DAY, _MIN_AGE_DAYS)
    return np.log1p(x0 / days * horizon_days)


@dataclass(frozen=True)
class LogLinear:
    """y = intercept + Σ coefficient · log1p(column), fitted by least squares on train.

    `fill` holds the train medians of the transformed columns, used where a value is missing.
    """

    columns: tuple[str, ...]
    intercept: float
    coefficients: tuple[float, ...]
    fill: tuple[float, ...]

    @classmethod
    def fit(cls, table: pa.Table, columns: Sequence[str], y: np.ndarray) -> LogLinear:
        """Least squares; columns without any value in train are left out."""
        terms = {name: log_term(table, name) for name in columns}
        terms = {name: term for name, term in terms.items() if np.isfinite(term).any()}
        fill = {name: float(np.nanmedian(term)) for name, term in terms.items()}
        design = [np.where(np.isfinite(term), term, fill[name]) for name, term in terms.items()]
        solution = np.linalg.lstsq(np.column_stack([np.ones(len(y)), *design]), y, rcond=None)[0]
        return cls(tuple(terms), float(solution[0]), tuple(map(float, solution[1:])), tuple(fill.values()))

    def predict(self, table: pa.Table) -> np.ndarray:
        result = np.full(table.num_rows, self.intercept)
        for name, coefficient, fill in zip(self.columns, self.coefficients, self.fill, strict=True):
            term = log_term(table, name)
            result += coefficient * np.where(np.isfinite(term), term, fill)
        return np.maximum(result, FLOOR)

    def as_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> LogLinear:
        return cls(
            tuple(value["columns"]), float(value["intercept"]), tuple(value["coefficients"]), tuple(value["fill"])
        )


def log_term(table: pa.Table, name: str) -> np.ndarray:
    """log1p of a non-negative column; NaN where missing."""
    return np.log1p(np.maximum(numeric_column(table, name), 0.0))
