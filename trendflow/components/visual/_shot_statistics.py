"""Statistics of frame values per shot, and of shot values per video. NaN stands for what was not measured.

Method: with the durations w of the shots and the mean values x of their frames, the weighted mean is m = Σwx / Σw and
the weighted standard deviation √(Σw(x − m)² / Σw), over shots with a value. Shares of shots judge x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ShotStatistics:
    """Per shot and feature, float32 `[S, G]`; NaN without a value, and a deviation of fewer than two is NaN."""

    mean: np.ndarray
    std: np.ndarray
    min: np.ndarray
    max: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, shot_ids: np.ndarray, shots: int) -> ShotStatistics:
        """From frame values `[N, G]` and the shot of each frame `[N]`; only finite values count."""
        mean = shot_mean(values, shot_ids, shots)
        known = np.isfinite(values)
        count = _summed(known.astype(np.float64), shot_ids, shots)
        off = np.where(known, values - mean[shot_ids], 0.0)
        low = np.full(mean.shape, np.inf)
        high = np.full(mean.shape, -np.inf)
        np.minimum.at(low, shot_ids, np.where(known, values, np.inf))
        np.maximum.at(high, shot_ids, np.where(known, values, -np.inf))
        std = np.sqrt(_summed(off * off, shot_ids, shots) / np.maximum(count, 1))
        return cls(
            mean=mean.astype(np.float32),
            std=np.where(count >= 2, std, np.nan).astype(np.float32),
            min=np.where(count >= 1, low, np.nan).astype(np.float32),
            max=np.where(count >= 1, high, np.nan).astype(np.float32),
        )


def shot_mean(values: np.ndarray, shot_ids: np.ndarray, shots: int) -> np.ndarray:
    """Mean of the finite values of each shot, float64 `[S, G]`."""
    known = np.isfinite(values)
    count = _summed(known.astype(np.float64), shot_ids, shots)
    total = _summed(np.where(known, values, 0.0), shot_ids, shots)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _summed(values: np.ndarray, shot_ids: np.ndarray, shots: int) -> np.ndarray:
    total = np.zeros((shots, values.shape[1]))
    np.add.at(total, shot_ids, values)
    return total


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Σwx ÷ Σw over the finite `values` `[S]`; NaN without any."""
    known = np.isfinite(values)
    total = float(weights[known].sum())
    return float((weights[known] * values[known]).sum() / total) if total > 0 else float("nan")


def weighted_std(values: np.ndarray, weights: np.ndarray) -> float:
    """√(Σw(x − m)² ÷ Σw) around the weighted mean m; NaN with fewer than two finite values."""
    known = np.isfinite(values)
    if known.sum() < 2:
        return float("nan")
    return weighted_mean((values - weighted_mean(values, weights)) ** 2, weights) ** 0.5


def share_of_shots(values: np.ndarray, holds: np.ndarray) -> float:
    """Share of the shots with a finite value for which `holds` is true; NaN without any."""
    known = np.isfinite(values)
    return float(holds[known].mean()) if known.any() else float("nan")
