"""What a family is asked to fit and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np


@dataclass(frozen=True)
class FitData:
    """Encoded rows [n, features] with outcomes of train and val; `categorical` are column positions holding codes."""

    x: np.ndarray
    y: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    categorical: tuple[int, ...]


@dataclass(frozen=True)
class Objective:
    """`rmse`, `tweedie` with its variance power, or `quantile` with its level."""

    kind: Literal["rmse", "tweedie", "quantile"]
    parameter: float = 0.0


@dataclass(frozen=True)
class Fitted:
    """A model file, cut at `best_iteration` trees: the best on val."""

    data: bytes
    best_iteration: int


class Family(Protocol):
    """One library's gradient boosting with its early stopping on val."""

    @property
    def extension(self) -> str: ...

    @property
    def early_stopping_rounds(self) -> int: ...

    def fit(self, data: FitData, objective: Objective, params: Mapping[str, Any], seed: int, threads: int) -> Fitted:
        """Fit with `params` (of `hyperparameters.with_defaults`). Equal arguments give equal predictions."""
        ...
