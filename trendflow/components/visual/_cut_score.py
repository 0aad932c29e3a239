"""The dense signals of a video and the cut score computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trendflow.components.visual._cut_constants import CUTS
from trendflow.contracts.errors import TrendFlowError

_KEYS = ("pts_sec", "hist_l1", "luma_mean", "lowres_mad", "corrupt_mask")


@dataclass(frozen=True)
class DenseSignals:
    """Signals of every source frame, F rows; row j compares frame j with frame j-1."""

    t: np.ndarray  # float64 [F], seconds, strictly increasing
    hist: np.ndarray  # float64 [F]
    luma: np.ndarray  # float64 [F]
    mad: np.ndarray  # float64 [F]
    corrupt: np.ndarray  # bool [F]
    score: np.ndarray  # float64 [F]

    def __len__(self) -> int:
        return len(self.t)

    def frame_at(self, time_s: float) -> int:
        """First source frame at or after a time; the last one when there is none."""
        # Half a microsecond absorbs the rounding of a mean of two frame times.
        return min(int(np.searchsorted(self.t, time_s - 5e-7)), len(self.t) - 1)


def dense_signals(arrays: Mapping[str, np.ndarray]) -> DenseSignals:
    """Check and bundle the arrays of `dense_signals.npz`.

    Raises `dependency_missing` when one is absent, `artifact_validation_failed` when they do not belong together.
    """
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise TrendFlowError("dependency_missing", f"The dense signals lack {missing}.", kind="artifact", keys=missing)
    t, hist, luma, mad = (np.asarray(arrays[key], dtype=np.float64) for key in _KEYS[:4])
    if {len(arrays[key]) for key in _KEYS} != {len(t)} or not np.all(np.diff(t) > 0):
        raise TrendFlowError("artifact_validation_failed", "The dense signals differ in length or their time falls.")
    return DenseSignals(t, hist, luma, mad, np.asarray(arrays["corrupt_mask"], dtype=bool), cut_score(hist, mad))


def cut_score(hist_l1: np.ndarray, lowres_mad: np.ndarray) -> np.ndarray:
    """s = sqrt(hist_l1 · min(1, lowres_mad / mad_scale)), in [0, 1]; row 0 stays NaN.

    A geometric mean, because both colour and structure must change: an arithmetic one fires on fades.
    """
    return np.sqrt(hist_l1 * np.minimum(1.0, lowres_mad / CUTS.mad_scale))


def neighbourhood_mean(score: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Mean score `[F]` of the pairs around each pair, itself excluded.

    Pairs within ±`neighbourhood_s` count, and at least `neighbourhood_pairs` on each side where the video has
    them. A pair without neighbours gets 0.
    """
    rows = np.arange(len(t))
    side = int(CUTS.neighbourhood_pairs)
    # The tolerance keeps frame times such as 6/24 s inside the closed interval.
    first = np.searchsorted(t, t - CUTS.neighbourhood_s - 1e-9)
    last = np.searchsorted(t, t + CUTS.neighbourhood_s + 1e-9, side="right") - 1
    first = np.clip(np.minimum(first, rows - side), 1, None)  # row 0 is no pair
    last = np.clip(np.maximum(last, rows + side), None, len(t) - 1)
    own = np.nan_to_num(score)
    running = np.concatenate([[0.0], np.cumsum(own)])
    total = running[last + 1] - running[first] - own
    count = last - first
    mean = np.zeros(len(t))
    np.divide(total, count, out=mean, where=count > 0)
    return np.maximum(mean, 0.0)  # the difference of running sums may fall below 0 by rounding
