"""Flicker of the dense luma: fast changes of brightness around a moment, within its shot.

Method: `flicker_std_1s` is the standard deviation of luma_mean minus its mean over ±`flicker_mean_s`/2, over the source
frames within ±`flicker_reach_s` of the sample. Both use frames of its shot alone and none with corrupt_mask.
"""

from __future__ import annotations

import numpy as np

# Frame times are multiples of an inexact frame interval; the tolerance keeps both ends of a closed interval inside.
_TOLERANCE_S = 1e-6


def flicker(
    time_s: np.ndarray,
    luma: np.ndarray,
    usable: np.ndarray,
    shot_starts: np.ndarray,
    moments_s: np.ndarray,
    moment_shots: np.ndarray,
    *,
    mean_s: float,
    reach_s: float,
) -> np.ndarray:
    """Standard deviation of luma minus its running mean, float64 `[N]`.

    `time_s`, `luma`, `usable` are dense `[F]`; `shot_starts` int `[S]` is the first dense frame of each shot. The
    running mean is centred and `mean_s` long; the deviation is taken over `reach_s` to both sides of each of
    `moments_s` `[N]`. Both stay within the moment's shot, else every cut would count as flicker. NaN with fewer than
    two usable frames.
    """
    bounds = np.append(shot_starts, len(time_s))
    shot_of_frame = np.searchsorted(shot_starts, np.arange(len(time_s)), side="right") - 1
    first, last = bounds[shot_of_frame], bounds[shot_of_frame + 1]
    residual = luma - _running_mean(time_s, luma, usable, first, last, mean_s / 2)
    low = np.maximum(np.searchsorted(time_s, moments_s - reach_s - _TOLERANCE_S), bounds[moment_shots])
    high = np.minimum(
        np.searchsorted(time_s, moments_s + reach_s + _TOLERANCE_S, side="right"), bounds[moment_shots + 1]
    )
    result = np.full(len(moments_s), np.nan)
    for i, (start, stop) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        values = residual[start:stop][usable[start:stop]]
        if len(values) >= 2:
            result[i] = values.std()
    return result


def _running_mean(
    time_s: np.ndarray, luma: np.ndarray, usable: np.ndarray, first: np.ndarray, last: np.ndarray, half_s: float
) -> np.ndarray:
    """Mean of the usable luma within ±`half_s` of every frame and within [first, last); NaN without any."""
    low = np.maximum(np.searchsorted(time_s, time_s - half_s - _TOLERANCE_S), first)
    high = np.minimum(np.searchsorted(time_s, time_s + half_s + _TOLERANCE_S, side="right"), last)
    total = np.concatenate([[0.0], np.cumsum(np.where(usable, luma, 0.0))])
    count = np.concatenate([[0], np.cumsum(usable)])
    mean = np.full(len(time_s), np.nan)
    np.divide(total[high] - total[low], count[high] - count[low], out=mean, where=count[high] > count[low])
    return mean
