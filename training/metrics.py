"""RMSE, MAE and Spearman with bootstrap intervals over channels, all resamples at once.

Videos of one channel resemble each other, so the channel is what is drawn. A resample is a vector of row weights
(how often the row's channel was drawn); each metric is computed from weights, which equals computing it on the
repeated rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

LOW_N = 30
METRICS = ("rmse", "mae", "spearman")
_CHUNK_ELEMENTS = 4_000_000
_TAILS = (2.5, 97.5)
_MIN_DEFINED = 0.95


@dataclass(frozen=True)
class Estimate:
    """A metric on the rows themselves and on every resample; NaN where undefined."""

    value: float
    samples: np.ndarray

    def __sub__(self, other: Estimate) -> Estimate:
        """Paired: both must come from one `ChannelBootstrap`."""
        return Estimate(self.value - other.value, self.samples - other.samples)

    def as_dict(self) -> dict[str, float | None]:
        """`value` and the 95 % percentile interval; null where undefined.

        There is no interval when the metric is undefined on more than one resample in twenty: what is left of a nearly
        constant forecast would look more certain than it is.
        """
        finite = self.samples[np.isfinite(self.samples)]
        enough = len(finite) > 0 and len(finite) >= _MIN_DEFINED * len(self.samples)
        low, high = np.percentile(finite, _TAILS) if enough and np.isfinite(self.value) else (None, None)
        return {"value": _number(self.value), "low": _number(low), "high": _number(high)}


class ChannelBootstrap:
    """Resamples of the channels of one set of rows; the same seed gives the same resamples."""

    def __init__(self, channels: np.ndarray, resamples: int, seed: int) -> None:
        names, self._channel = np.unique(channels, return_inverse=True)
        self.n = len(channels)
        self.n_channels = len(names)
        rng = np.random.default_rng(seed)
        if self.n_channels > 1:
            share = np.full(self.n_channels, 1 / self.n_channels)
            self._counts = rng.multinomial(self.n_channels, share, resamples)
        else:  # one channel cannot vary: no resample, no interval
            self._counts = np.zeros((0, self.n_channels), dtype=np.int64)

    def _weights(self) -> Iterator[np.ndarray]:
        """float64 [chunk, rows], bounded in memory."""
        step = max(1, _CHUNK_ELEMENTS // max(self.n, 1))
        for start in range(0, len(self._counts), step):
            yield self._counts[start : start + step][:, self._channel].astype(np.float64)

    def mean(self, values: np.ndarray) -> Estimate:
        samples = [weights @ values / weights.sum(axis=1) for weights in self._weights()]
        return Estimate(float(np.mean(values)) if len(values) else np.nan, _joined(samples))

    def scores(self, y: np.ndarray, predicted: np.ndarray) -> dict[str, Estimate]:
        """The metrics of one prediction."""
        error = predicted - y
        squared = self.mean(error**2)
        ranks = _Ties(predicted), _Ties(y)
        samples = [_weighted_spearman(*ranks, weights) for weights in self._weights()]
        whole = _weighted_spearman(*ranks, np.ones((1, self.n))) if self.n else np.array([np.nan])
        return {
            "rmse": Estimate(float(np.sqrt(squared.value)), np.sqrt(squared.samples)),
            "mae": self.mean(np.abs(error)),
            "spearman": Estimate(float(whole[0]), _joined(samples)),
        }

    def cell(self, scores: Mapping[str, Estimate]) -> dict[str, Any]:
        """The JSON form of some estimates on these rows."""
        return {
            "n": self.n,
            "n_channels": self.n_channels,
            "low_n": self.n < LOW_N,
            **{name: estimate.as_dict() for name, estimate in scores.items()},
        }


class _Ties:
    """Rows grouped by equal value, in ascending order."""

    def __init__(self, values: np.ndarray) -> None:
        self.order = np.argsort(values, kind="stable")
        ordered = values[self.order]
        new = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(values) else np.empty(0, bool)
        self.starts = np.flatnonzero(new)
        self.group = np.empty(len(values), dtype=np.int64)
        self.group[self.order] = np.cumsum(new) - 1

    def ranks(self, weights: np.ndarray) -> np.ndarray:
        """Average ranks [chunk, rows] when row i stands `weights[:, i]` times."""
        totals = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        middle = np.cumsum(totals, axis=1) - (totals - 1) / 2
        return middle[:, self.group]


def _weighted_spearman(first: _Ties, second: _Ties, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1, keepdims=True)
    a, b = first.ranks(weights), second.ranks(weights)
    a -= (weights * a).sum(axis=1, keepdims=True) / total
    b -= (weights * b).sum(axis=1, keepdims=True) / total
    spread = (weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Ranks are multiples of one half: a true spread is far above rounding, a constant's is rounding alone.
        return np.where(spread > 1e-6, (weights * a * b).sum(axis=1) / np.sqrt(spread), np.nan)


def _joined(samples: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(samples) if samples else np.empty(0)


def _number(value: float | None) -> float | None:
    return float(value) if value is not None and np.isfinite(value) else None
