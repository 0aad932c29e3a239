"""Measures of one map of relative inverse depth.

The scale and shift of a map are unknown and differ between frames, so everything that is compared between frames is
measured on the map normalised by its own robust range: d = clip((z − p05) / (p95 − p05), 0, 1).

Method: the raw map z is the output of the model; percentiles run over its pixels. ∇d takes central differences,
one-sided at the border. A third has ⌊rows / 3⌋ rows. Between-class variance is w(1 − w)(μ₁ − μ₀)² for the share w of
pixels below k/128, k = 1…127, and the mean d of the pixels on both sides. Grids are averaged over areas by OpenCV's
INTER_AREA.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.thresholds import THRESHOLDS

LOW_PERCENTILE, HIGH_PERCENTILE = 5, 95


@dataclass(frozen=True)
class DepthConstants:
    """Shares of the normalised range, except `flat_range` (share of the magnitude) and `separation_bins`."""

    flat_range: float
    foreground_depth: float
    separation_bins: int
    separation_variance_min: float


DEPTH = THRESHOLDS.bind("core_depth_midas", DepthConstants)


@dataclass(frozen=True)
class RawDepth:
    """Statistics of a map in its own, unknown units."""

    mean: float
    std: float
    p05: float
    p95: float

    @classmethod
    def of(cls, depth: np.ndarray) -> RawDepth:
        """Raises `artifact_validation_failed` when the map `[h, w]` is not finite."""
        if not np.isfinite(depth).all():
            raise TrendFlowError("artifact_validation_failed", "A depth map is not finite.")
        low, high = np.percentile(depth.astype(np.float64), (LOW_PERCENTILE, HIGH_PERCENTILE)).tolist()
        return cls(float(depth.mean(dtype=np.float64)), float(depth.std(dtype=np.float64)), low, high)

    @property
    def range(self) -> float:
        return self.p95 - self.p05

    @property
    def is_flat(self) -> bool:
        return self.range < DEPTH.flat_range * max(1.0, abs(self.p95))

    def normalised(self, depth: np.ndarray) -> np.ndarray:
        """d of a map that is not flat, float32 in [0, 1]."""
        return np.clip((depth.astype(np.float64) - self.p05) / self.range, 0.0, 1.0).astype(np.float32)


def complexity(d: np.ndarray) -> float:
    """Mean |∇d| per pixel by central differences."""
    down, across = np.gradient(d)
    return float(np.hypot(down, across).mean(dtype=np.float64))


def separation(d: np.ndarray) -> float:
    """Largest share of the variance of d that one threshold explains, in [0, 1]; NaN for a constant map.

    Between-class variance ÷ total variance after Otsu, "A threshold selection method from gray-level histograms"
    (1979). Thresholds lie on the edges of the bins; class means are those of the pixels, not of the bins.
    """
    values = d.ravel().astype(np.float64)
    total_variance = values.var()
    if total_variance < DEPTH.separation_variance_min:
        return float("nan")
    bins = int(DEPTH.separation_bins)
    of_pixel = np.minimum((values * bins).astype(np.int64), bins - 1)
    below = np.cumsum(np.bincount(of_pixel, minlength=bins))[:-1] / len(values)
    sum_below = np.cumsum(np.bincount(of_pixel, values, minlength=bins))[:-1] / len(values)
    split = (below > 0) & (below < 1)
    between = (values.mean() * below - sum_below)[split] ** 2 / (below * (1 - below))[split]
    return float(min(1.0, between.max(initial=0.0) / total_variance))


def foreground_share(d: np.ndarray) -> float:
    """Share of the pixels nearer than the middle of the robust range."""
    return float(np.mean(d > DEPTH.foreground_depth))


def near_bottom_bias(d: np.ndarray) -> float:
    """Mean d of the lower third − mean d of the upper third, in [-1, 1]."""
    rows = max(1, len(d) // 3)
    return float(d[-rows:].mean(dtype=np.float64) - d[:rows].mean(dtype=np.float64))


def area_average(d: np.ndarray, side: int) -> np.ndarray:
    """The map averaged over the areas of a `side` × `side` grid."""
    import cv2

    return cv2.resize(d, (side, side), interpolation=cv2.INTER_AREA)
