"""The energy curve of a video: how much the picture changes and moves, smoothed in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.thresholds import THRESHOLDS

DOWNSAMPLED = 128


@dataclass(frozen=True)
class StoryConstants:
    """Times in seconds; `change_scale` in cosine distance per second, motion in frame lengths per second."""

    min_samples: int
    change_scale: float
    motion_scale: float
    smoothing_sigma_s: float
    hook_max_s: float
    hook_share: float
    hook_min_samples: int
    motion_spike: float
    peak_prominence: float

    def __post_init__(self) -> None:
        if not (self.change_scale > 0 and self.motion_scale > 0):
            raise TrendFlowError("config_invalid", "The scales of the story energy must be positive.")


STORY = THRESHOLDS.bind("story_structure", StoryConstants)


def energy(change: np.ndarray, motion: np.ndarray, constants: StoryConstants = STORY) -> np.ndarray:
    """½ ln(1 + change/C₀) + ½ ln(1 + motion/M₀), float64 `[N]` ≥ 0.

    Where one of both is NaN the other counts twice; where both are, so is the energy.
    """
    terms = np.stack([np.log1p(change / constants.change_scale), np.log1p(motion / constants.motion_scale)])
    measured = np.isfinite(terms)
    count = measured.sum(axis=0)
    total = np.where(measured, terms, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def smoothed(values: np.ndarray, times_s: np.ndarray, sigma_s: float) -> np.ndarray:
    """Gaussian-weighted mean over time of the finite values, at their own times; other rows stay NaN.

    The weights of a row sum to 1 whatever its neighbours, so ends and uneven sampling do not pull the curve down.
    """
    finite = np.isfinite(values)
    times = times_s[finite]
    weights = np.exp(-0.5 * np.square((times[:, None] - times[None, :]) / sigma_s))
    curve = np.full(len(values), np.nan)
    curve[finite] = (weights @ values[finite]) / weights.sum(axis=1)
    return curve


def downsampled(curve: np.ndarray, times_s: np.ndarray, duration_s: float) -> np.ndarray:
    """The finite part of a curve at 128 even times from 0 to D, linear between samples, float64 `[128]`.

    Before the first and after the last sample the nearest one is kept. NaN when no sample is finite.
    """
    finite = np.isfinite(curve)
    if not finite.any():
        return np.full(DOWNSAMPLED, np.nan)
    return np.interp(np.linspace(0.0, duration_s, DOWNSAMPLED), times_s[finite], curve[finite])


def peaks(curve: np.ndarray, prominence: float) -> np.ndarray:
    """Rows of the inner maxima of the finite part of a curve with at least this prominence, int64."""
    # Slow to import; reading a declaration must not cost it.
    import scipy.signal

    rows = np.flatnonzero(np.isfinite(curve))
    found, _ = scipy.signal.find_peaks(curve[rows], prominence=prominence)
    return np.asarray(rows[found])
