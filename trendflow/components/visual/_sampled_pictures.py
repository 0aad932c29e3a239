"""One pass over the sampled frames: structural similarity of successive samples and small pictures for later tests.

Method: SSIM is that of Wang et al. (2004) with constants 0.01² and 0.03² on luma 0.2126 R + 0.7152 G + 0.0722 B in
[0, 1], local means by OpenCV's GaussianBlur with 11×11 pixels and σ = 1.5 at its default border, averaged over all
pixels. Frames with a side above 512 px are reduced to that by area averaging. Thumbnails are 48×27, by area averaging.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trendflow.components.base import FrameSamples

THUMB_WIDTH, THUMB_HEIGHT = 48, 27
LUMA_WEIGHTS = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)

_MAX_SIDE = 512
_CHUNK = 16
# Constants of Wang et al., "Image quality assessment: from error visibility to structural similarity" (2004).
_SSIM_WINDOW = (11, 11)
_SSIM_SIGMA = 1.5
_SSIM_C1 = 0.01**2
_SSIM_C2 = 0.03**2


@dataclass(frozen=True)
class Pictures:
    """Small pictures in time order, for comparisons that need no detail."""

    times_s: np.ndarray  # float64 [n]
    rgb: np.ndarray  # uint8 [n, 27, 48, 3]

    def __len__(self) -> int:
        return len(self.times_s)

    def luma(self, index: int) -> np.ndarray:
        """float32 `[27, 48]` in [0, 1]."""
        return (self.rgb[index].astype(np.float32) @ LUMA_WEIGHTS) / 255


def compare_samples(samples: FrameSamples, progress: Callable[[int, int], None]) -> tuple[np.ndarray, Pictures]:
    """1 - SSIM of luma between successive samples, float32 `[N-1]` in [0, 2], and a small picture of each."""
    import cv2

    count = len(samples)
    drops = np.full(max(0, count - 1), np.nan, dtype=np.float32)
    thumbs = np.empty((count, THUMB_HEIGHT, THUMB_WIDTH, 3), dtype=np.uint8)
    previous: _LumaStatistics | None = None
    for start in range(0, count, _CHUNK):
        stop = min(count, start + _CHUNK)
        for i, frame in enumerate(samples.read(start, stop), start=start):
            thumbs[i] = cv2.resize(frame, (THUMB_WIDTH, THUMB_HEIGHT), interpolation=cv2.INTER_AREA)
            current = _LumaStatistics.of(frame)
            if previous is not None:
                drops[i - 1] = 1.0 - ssim(previous, current)
            previous = current
        progress(stop, count)
    return drops, Pictures(np.asarray(samples.times_s, dtype=np.float64), thumbs)


@dataclass(frozen=True)
class _LumaStatistics:
    """Luma of a frame with its local mean and local mean square; each frame meets two neighbours."""

    luma: np.ndarray  # float32 [h, w] in [0, 1]
    mean: np.ndarray
    square: np.ndarray

    @classmethod
    def of(cls, frame: np.ndarray) -> _LumaStatistics:
        import cv2

        luma = cv2.transform(frame.astype(np.float32), LUMA_WEIGHTS[None, :] / 255)
        height, width = luma.shape
        scale = _MAX_SIDE / max(height, width)
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            luma = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
        return cls(luma, _smooth(luma), _smooth(luma * luma))


def _smooth(values: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(values, _SSIM_WINDOW, _SSIM_SIGMA)


def ssim(a: _LumaStatistics, b: _LumaStatistics) -> float:
    """Mean structural similarity of two luma pictures of equal size (Wang et al. 2004), in [-1, 1]."""
    product = a.mean * b.mean
    covariance = _smooth(a.luma * b.luma) - product
    variances = (a.square - a.mean * a.mean) + (b.square - b.mean * b.mean)
    similarity = (2 * product + _SSIM_C1) * (2 * covariance + _SSIM_C2)
    similarity /= (a.mean * a.mean + b.mean * b.mean + _SSIM_C1) * (variances + _SSIM_C2)
    return float(np.clip(similarity.mean(dtype=np.float64), -1.0, 1.0))
