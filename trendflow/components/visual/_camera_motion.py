"""Motion of the camera: the similarity that most of a flow field follows.

A similarity w = a·z + b in complex coordinates (x + iy, origin in the centre of the frame) is fitted to the flow at
the centres of a 32×32 grid with random sample consensus (Fischler and Bolles, 1981) and least squares on the inliers.
The "random" samples are a fixed quasi-random sequence, so equal fields give equal answers everywhere.

Method: at the centres of 32×32 equal cells of the field (bilinear between pixels) points z = x + iy around the centre
of the frame move to w = z + v_x + i v_y, in model pixels. Of the similarities w = a·z + b through 128 fixed, evenly
spread pairs of points at least 8 cells apart, ½ ≤ |a| ≤ 2, the one with the least sum of min(residual², `inlier_px`²)
is taken. It is fitted again by least squares to its inliers, at most five times, while that sum falls. |a| is the
scale, arg a the rotation, b the displacement of the centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trendflow.components.visual._dense_flow import PixelScale
from trendflow.components.visual._flow_statistics import FLOW

GRID = 32

# Two of 1024 points fix a similarity. With a quarter of inliers, the least that counts, 128 samples miss two of them
# with a probability of (1 − 1/16)^128 < 0.03 %.
_SAMPLES = 128
# Neighbouring points would carry the error of the flow, far magnified, to the other end of the frame.
_MIN_DISTANCE_CELLS = 8.0
_REFINEMENTS = 5
# More zoom than this between two samples would leave too little common picture to measure it.
_MAX_SCALE = 2.0

SHAKE_REACH = 2  # pairs to each side
SHAKE_MIN_PAIRS = 3


@dataclass(frozen=True)
class CameraMotion:
    """Motion of the picture between two frames that is the camera's.

    Where too few points agree, everything but `inlier_share` is NaN.
    `scale` > 1 enlarges; `rotation` in rad, clockwise on the screen; `tx`, `ty` of the frame centre in frame lengths,
    right and down.
    """

    inlier_share: float
    scale: float
    rotation: float
    tx: float
    ty: float


class CameraFit:
    """Fits fields of one size: `width`, `height` in model pixels."""

    def __init__(self, width: int, height: int) -> None:
        x = (np.arange(GRID) + 0.5) * width / GRID - 0.5
        y = (np.arange(GRID) + 0.5) * height / GRID - 0.5
        grid_x, grid_y = np.meshgrid(x, y)
        self._map_x, self._map_y = grid_x.astype(np.float32), grid_y.astype(np.float32)
        centred = (grid_x - (width - 1) / 2) + 1j * (grid_y - (height - 1) / 2)
        self._from = centred.ravel()

    def __call__(self, forward: np.ndarray, scale: PixelScale) -> CameraMotion:
        """Fit a field float32 `[h, w, 2]`."""
        import cv2

        flow = cv2.remap(forward, self._map_x, self._map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        to = self._from + (flow[..., 0] + 1j * flow[..., 1]).ravel()
        a, b, share = fit_similarity(self._from, to, FLOW.inlier_px)
        if share < FLOW.camera_inlier_share:
            nan = float("nan")
            return CameraMotion(share, nan, nan, nan, nan)
        return CameraMotion(share, abs(a), float(np.angle(a)), b.real * scale.x, b.imag * scale.y)


def fit_similarity(start: np.ndarray, end: np.ndarray, inlier_px: float) -> tuple[complex, complex, float]:
    """The similarity `end ≈ a·start + b` that most points follow: a, b and the share of inliers.

    `start`, `end`: complex `[1024]`, points in grid order; an inlier has a residual of at most `inlier_px`. Candidates
    are ranked by the squared residual, cut off at the inlier limit (MSAC; Torr and Zisserman, 2000): a mere count of
    inliers would prefer a worse fit for one point more.
    """
    first, second = _PAIRS
    a = (end[second] - end[first]) / (start[second] - start[first])
    plausible = (np.abs(a) <= _MAX_SCALE) & (np.abs(a) >= 1 / _MAX_SCALE)
    if not plausible.any():
        return 1 + 0j, 0j, 0.0
    a, first = a[plausible], first[plausible]
    b = end[first] - a * start[first]
    limit = np.float32(inlier_px**2)
    errors = _squared_residuals(start, end, a[:, None], b[:, None])
    costs = np.minimum(errors, limit).sum(axis=1)
    best = int(np.argmin(costs))
    solution, error, cost = (complex(a[best]), complex(b[best])), errors[best], float(costs[best])
    for _ in range(_REFINEMENTS):
        inliers = error <= limit
        refined = _least_squares(start[inliers], end[inliers])
        refined_error = _squared_residuals(start, end, *refined)
        refined_cost = float(np.minimum(refined_error, limit).sum())
        if refined_cost >= cost:
            break
        solution, error, cost = refined, refined_error, refined_cost
    return *solution, float(np.mean(error <= limit))


def _squared_residuals(
    start: np.ndarray, end: np.ndarray, a: np.ndarray | complex, b: np.ndarray | complex
) -> np.ndarray:
    """|a·start + b − end|², float32; real arithmetic in single precision is four times as fast."""
    x, y, to_x, to_y = (part.astype(np.float32) for part in (start.real, start.imag, end.real, end.imag))
    a_x, a_y, b_x, b_y = (np.asarray(part, np.float32) for part in (np.real(a), np.imag(a), np.real(b), np.imag(b)))
    off_x = a_x * x - a_y * y + b_x - to_x
    off_y = a_y * x + a_x * y + b_y - to_y
    return np.asarray(off_x * off_x + off_y * off_y)


def _least_squares(start: np.ndarray, end: np.ndarray) -> tuple[complex, complex]:
    """The similarity with the least sum of squared residuals over two or more different points."""
    centred = start - start.mean()
    a = np.vdot(centred, end) / np.vdot(centred, centred).real
    return complex(a), complex(end.mean() - a * start.mean())


def _sample_pairs() -> tuple[np.ndarray, np.ndarray]:
    """Pairs of grid points far enough apart, as indices into the flattened grid.

    Points of the additive recurrence with the generalised golden ratio of four dimensions (Roberts, "The unreasonable
    effectiveness of quasirandom sequences", 2018): evenly spread without a generator whose stream may change.
    """
    ratio = 1.1673039782614187  # the real root of x⁵ = x + 1
    steps = ratio ** -np.arange(1.0, 5.0)
    cells = ((0.5 + np.arange(1, 4 * _SAMPLES)[:, None] * steps) % 1.0 * GRID).astype(np.int64)
    apart = np.hypot(cells[:, 0] - cells[:, 2], cells[:, 1] - cells[:, 3]) >= _MIN_DISTANCE_CELLS
    x1, y1, x2, y2 = cells[apart][:_SAMPLES].T
    return y1 * GRID + x1, y2 * GRID + x2


_PAIRS = _sample_pairs()


def camera_shake(translation: np.ndarray) -> np.ndarray:
    """Distance of every pair's translation from the median of its neighbourhood.

    `translation` float `[N, 2]`, rows NaN where unknown → float64 `[N]`. The neighbourhood reaches two pairs to each
    side; with fewer than three known translations in it, or without its own, a row is NaN.
    """
    known = np.isfinite(translation).all(axis=1)
    padded = np.full((len(translation) + 2 * SHAKE_REACH, 2), np.nan)
    padded[SHAKE_REACH : SHAKE_REACH + len(translation)] = np.where(known[:, None], translation, np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, 2 * SHAKE_REACH + 1, axis=0)  # [N, 2, 5]
    measured = known & (np.isfinite(around[:, 0]).sum(axis=1) >= SHAKE_MIN_PAIRS)
    shake = np.full(len(translation), np.nan)
    centre = np.nanmedian(around[measured], axis=2)
    shake[measured] = np.hypot(*(translation[measured] - centre).T)
    return shake
