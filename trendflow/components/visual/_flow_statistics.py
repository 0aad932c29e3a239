"""What one flow field says: is it believable, how much moves, in which direction, does it spread.

Fields are float32 `[h, w, 2]` (x right, y down) in model pixels. Tolerances are in model pixels too: they express the
accuracy of the estimate, and the model's grid is the same part of the frame whatever the analysis size is.

Method: statistics run over all pixels of the field. Where v leads is between pixels: the backward flow is fetched there
bilinearly. Sine and cosine of the direction weighted by magnitude are Σ dy / Σ m and Σ dx / Σ m over the moving pixels,
(dx, dy) in frame lengths and m its length. Derivatives are central differences of model pixels, one-sided at the
border.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trendflow.components.visual._dense_flow import PixelScale
from trendflow.contracts.thresholds import THRESHOLDS


@dataclass(frozen=True)
class FlowConstants:
    """Pixels are model pixels."""

    consistency_px: float
    consistency_share: float
    reliable_consistency: float
    moving_px: float
    moving_share: float
    inlier_px: float
    camera_inlier_share: float


FLOW = THRESHOLDS.bind("core_optical_flow", FlowConstants)


@dataclass(frozen=True)
class FlowStatistics:
    """Displacements in frame lengths; the divergence has no unit. Nothing is divided by time yet."""

    consistency: float
    magnitude_mean: float
    magnitude_std: float
    magnitude_p95: float
    dx_mean: float
    dy_mean: float
    dir_sin: float
    dir_cos: float
    dir_dispersion: float
    divergence_abs_mean: float


def flow_statistics(forward: np.ndarray, backward: np.ndarray, scale: PixelScale) -> FlowStatistics:
    """Statistics of the forward field; the backward field only judges it."""
    dx, dy = forward[..., 0] * np.float32(scale.x), forward[..., 1] * np.float32(scale.y)
    length, length_px = _length(dx, dy), _length(forward[..., 0], forward[..., 1])
    sin, cos, dispersion = _direction(dx, dy, length, length_px >= FLOW.moving_px)
    return FlowStatistics(
        consistency=consistency(forward, backward),
        magnitude_mean=_mean(length),
        magnitude_std=float(length.std(dtype=np.float64)),
        magnitude_p95=float(np.percentile(length, 95)),
        dx_mean=_mean(dx),
        dy_mean=_mean(dy),
        dir_sin=sin,
        dir_cos=cos,
        dir_dispersion=dispersion,
        divergence_abs_mean=_divergence(forward),
    )


def consistency(forward: np.ndarray, backward: np.ndarray) -> float:
    """Share of pixels whose vector is undone by the backward vector found where it points.

    Sundaram et al., "Dense point trajectories by GPU-accelerated large displacement optical flow" (2010), with another
    tolerance. A pixel that leaves the frame cannot be confirmed and counts as not consistent.
    """
    import cv2

    height, width = forward.shape[:2]
    dx, dy = forward[..., 0], forward[..., 1]
    to_x, to_y = dx + np.arange(width, dtype=np.float32), dy + np.arange(height, dtype=np.float32)[:, None]
    back = cv2.remap(backward, to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (to_x >= 0) & (to_y >= 0) & (to_x <= width - 1) & (to_y <= height - 1)
    gap = _length(dx + back[..., 0], dy + back[..., 1])
    tolerance = np.maximum(np.float32(FLOW.consistency_px), np.float32(FLOW.consistency_share) * _length(dx, dy))
    return float(np.mean(inside & (gap <= tolerance)))


def _length(dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """‖(dx, dy)‖; np.hypot guards against overflow that pixels cannot reach, at five times the cost."""
    return np.asarray(np.sqrt(dx * dx + dy * dy))


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64))


def _direction(dx: np.ndarray, dy: np.ndarray, length: np.ndarray, moving: np.ndarray) -> tuple[float, float, float]:
    """Mean sine and cosine of the direction, weighted by magnitude, over moving pixels, and 1 − √(S² + C²)."""
    if moving.mean() < FLOW.moving_share:
        return float("nan"), float("nan"), float("nan")
    total, cos, sin = (float(np.sum(part, dtype=np.float64, where=moving)) for part in (length, dx, dy))
    cos, sin = cos / total, sin / total
    # Rounding may carry parallel vectors past length 1.
    return sin, cos, float(np.clip(1.0 - np.hypot(sin, cos), 0.0, 1.0))


def _divergence(forward: np.ndarray) -> float:
    """Mean |∂dx/∂x + ∂dy/∂y|; pixels over pixels, so the scale of an axis cancels. 0 for a single row or column."""
    height, width = forward.shape[:2]
    spread = np.zeros((height, width), dtype=np.float32)
    if width > 1:
        spread += np.gradient(forward[..., 0], axis=1)
    if height > 1:
        spread += np.gradient(forward[..., 1], axis=0)
    return _mean(np.abs(spread))


def magnitude_map(forward: np.ndarray, scale: PixelScale, side: int) -> np.ndarray:
    """Magnitude in frame lengths, averaged over areas to float32 `[side, side]`."""
    import cv2

    length = _length(forward[..., 0] * np.float32(scale.x), forward[..., 1] * np.float32(scale.y))
    return np.asarray(cv2.resize(length, (side, side), interpolation=cv2.INTER_AREA))
