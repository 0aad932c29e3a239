"""Dense signals: one row of low-resolution measurements per decoded source frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from trendflow.media.hsv_histogram import hsv_histogram
from trendflow.media.raster import THUMB_HEIGHT, THUMB_WIDTH

LUMA_WEIGHTS = (0.2126, 0.7152, 0.0722)
_LUMA = np.array(LUMA_WEIGHTS) / 255.0


def thumbnail(planes: np.ndarray) -> np.ndarray:
    """uint8 `[27, 48, 3]`, the area-averaged half of a uint8 `[3, 54, 96]` raster."""
    quads = planes.reshape(3, THUMB_HEIGHT, 2, THUMB_WIDTH, 2).sum(axis=(2, 4), dtype=np.uint16)
    return ((quads + 2) // 4).astype(np.uint8).transpose(1, 2, 0)


@dataclass
class DenseSignals:
    """Measures rasters in display order. `on_thumbnail` receives each frame's thumbnail."""

    on_thumbnail: Callable[[np.ndarray], None] | None = None
    hist_l1: list[float] = field(default_factory=list)
    luma_mean: list[float] = field(default_factory=list)
    lowres_mad: list[float] = field(default_factory=list)
    _raster: np.ndarray | None = None
    _histogram: np.ndarray | None = None

    def add(self, planes: np.ndarray) -> None:
        """One frame: uint8 `[3, 54, 96]` RGB planes."""
        histogram = hsv_histogram(planes)
        means = planes.reshape(3, -1).sum(axis=1, dtype=np.uint32) / planes[0].size
        self.luma_mean.append(float(means @ _LUMA))
        if self._raster is None or self._histogram is None:
            self.hist_l1.append(np.nan)
            self.lowres_mad.append(np.nan)
        else:
            self.hist_l1.append(min(float(np.abs(histogram - self._histogram).sum()) / 2, 1.0))
            difference = np.maximum(planes, self._raster) - np.minimum(planes, self._raster)
            self.lowres_mad.append(float(difference.sum(dtype=np.uint32)) / (255.0 * planes.size))
        self._raster, self._histogram = planes, histogram
        if self.on_thumbnail is not None:
            self.on_thumbnail(thumbnail(planes))

    def finish(self) -> dict[str, np.ndarray]:
        """`hist_l1`, `luma_mean`, `lowres_mad` as float32 `[F]`; row 0 of the first and the last is NaN."""
        return {
            name: np.array(getattr(self, name), dtype=np.float32) for name in ("hist_l1", "luma_mean", "lowres_mad")
        }
