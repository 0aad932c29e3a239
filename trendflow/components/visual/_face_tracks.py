"""Faces over time: track ids and smoothing within a track. Both depend on the faces alone, not on batches.

Method: boxes of neighbouring samples are paired greedily, best IoU first, down to 0.3; a sample without the face ends
its track. Each coordinate of a mesh is then the value, at its own time, of the straight line fitted to its track by
least squares with weights exp(−½(Δt / 0.04 s)²), 0 beyond 0.12 s.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trendflow.components.visual._boxes import iou_matrix

MIN_TRACK_IOU = 0.3
SMOOTHING_SIGMA_S = 0.04
SMOOTHING_REACH = 3.0


def assign_tracks(boxes: Sequence[np.ndarray], min_iou: float = MIN_TRACK_IOU) -> list[np.ndarray]:
    """Track ids int32 `[n_i]` per sample, numbered from 0 in the order of appearance.

    Boxes of neighbouring samples are paired greedily, best overlap first (ties: lower rows). A sample without the
    face ends its track: over a gap nothing proves that it is the same face.
    """
    tracks: list[np.ndarray] = []
    known = 0
    for i, current in enumerate(boxes):
        ids = np.full(len(current), -1, dtype=np.int32)
        if i and len(current) and len(boxes[i - 1]):
            overlap = iou_matrix(boxes[i - 1], current)
            for flat in np.argsort(-overlap, axis=None, kind="stable"):
                before, now = divmod(int(flat), len(current))
                if overlap[before, now] < min_iou:
                    break
                if ids[now] < 0 and tracks[i - 1][before] not in ids:
                    ids[now] = tracks[i - 1][before]
        fresh = ids < 0
        ids[fresh] = np.arange(known, known + fresh.sum())
        known += int(fresh.sum())
        tracks.append(ids)
    return tracks


def smooth_track(times_s: np.ndarray, values: np.ndarray, sigma_s: float = SMOOTHING_SIGMA_S) -> np.ndarray:
    """Local linear regression over time with Gaussian weights, `[n, …]` → `[n, …]`.

    A straight movement passes unchanged, also at the ends of a track and under uneven sampling; a plain weighted mean
    would lag there. Weights end at 3σ = 0.12 s, so sparse samples are not smoothed at all and mouth movements (up to
    about 4 Hz) survive dense ones. Fan & Gijbels, "Local Polynomial Modelling" (1996), §2.3. Rows with NaN stay as
    they are and support no other row.
    """
    flat = values.reshape(len(values), -1)
    valid = np.isfinite(flat).all(axis=1)
    smoothed = values.copy()
    if valid.sum() >= 2:
        weights = _local_linear_weights(times_s[valid], sigma_s)
        smoothed[valid] = (weights @ flat[valid]).reshape(-1, *values.shape[1:])
    return smoothed


def _local_linear_weights(times_s: np.ndarray, sigma_s: float) -> np.ndarray:
    """Row i holds the weights whose sum over samples is the regression's value at `times_s[i]`: `[n, n]`."""
    lag = (times_s[None, :] - times_s[:, None]) / sigma_s
    kernel = np.where(np.abs(lag) <= SMOOTHING_REACH, np.exp(-0.5 * lag**2), 0.0)
    moment0, moment1, moment2 = (np.sum(kernel * lag**power, axis=1, keepdims=True) for power in (0, 1, 2))
    determinant = moment0 * moment2 - moment1**2
    # A sample without neighbours in reach determines no slope; its own value is the answer.
    alone = determinant <= 0
    local = kernel * (moment2 - lag * moment1) / np.where(alone, 1.0, determinant)
    return np.where(alone, np.eye(len(times_s)), local)
