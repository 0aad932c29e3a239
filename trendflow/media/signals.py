"""Dense signals: one row of low-resolution measurements per decoded source frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

RASTER_WIDTH, RASTER_HEIGHT = 96, 54
THUMB_WIDTH, THUMB_HEIGHT = RASTER_WIDTH // 2, RASTER_HEIGHT // 2
LUMA_WEIGHTS = (0.2126, 0.7152, 0.0722)
HISTOGRAM_BINS = 148

_HUES, _SATS, _VALS = 16, 4, 4
_CELLS = (_VALS - 1) * (_SATS - 1) * _HUES


def _bin_of_node() -> np.ndarray:
    """int `[4 values, 4 saturations, 16 hues]` → bin: black is one bin, greys have no hue."""
    bins = np.empty((_VALS, _SATS, _HUES), dtype=np.int64)
    bins[0] = 0
    bins[1:, 0] = np.arange(1, _VALS)[:, None]
    bins[1:, 1:] = _VALS + np.arange((_VALS - 1) * (_SATS - 1) * _HUES).reshape(_VALS - 1, _SATS - 1, _HUES)
    return bins


def _corner_bins() -> np.ndarray:
    """int `[cells, 2, 2, 2]`: the bins at the corners of each (value, saturation, hue) cell."""
    nodes = _bin_of_node()
    value, sat, hue = np.meshgrid(np.arange(_VALS - 1), np.arange(_SATS - 1), np.arange(_HUES), indexing="ij")
    corners = np.empty((_CELLS, 2, 2, 2), dtype=np.int64)
    for dv in (0, 1):
        for ds in (0, 1):
            for dh in (0, 1):
                corners[:, dv, ds, dh] = nodes[value + dv, sat + ds, (hue + dh) % _HUES].ravel()
    return corners


_CORNERS = _corner_bins()
_INVERSE = np.concatenate([[0.0], 1.0 / np.arange(1, 256)])
_INVERSE_SAT = _INVERSE * (_SATS - 1)


def hsv_histograms(planes: np.ndarray) -> np.ndarray:
    """Soft HSV histograms, float64 `[B, 148]` with rows summing to 1, of uint8 `[B, 3, H, W]` RGB rasters.

    Hexcone HSV; every pixel is shared linearly between the 8 nodes around it (16 hues, circular; 4 saturations and 4
    values from 0 to 1). Within a cell the 8 shares are multilinear in the pixel's offsets, so it is enough to sum the 8
    monomials of the offsets per cell and to turn those sums into node shares once per cell instead of once per pixel.
    """
    count = len(planes)
    red, green, blue = (planes[:, k].reshape(count, -1) for k in range(3))
    pixels = red.shape[1]
    # Hue without branches: order green and blue, then red against the larger, and remember both swaps.
    large, small = np.maximum(green, blue), np.minimum(green, blue)
    middle, top = np.minimum(red, large), np.maximum(red, large)
    chroma = top - np.minimum(middle, small)
    blue_first = (green < blue).view(np.int8)
    red_second = (red < large).view(np.int8)
    hue = (middle.astype(np.int16) - small) * _INVERSE[chroma]
    hue += red_second * (12 * blue_first - 2) - 6 * blue_first
    np.abs(hue, out=hue)
    hue *= _HUES / 6.0
    value = top * ((_VALS - 1) / 255.0)
    sat = chroma * _INVERSE_SAT[top]

    cell = np.minimum(value, _VALS - 2).astype(np.int64)
    value -= cell
    index = np.minimum(sat, _SATS - 2).astype(np.int64)
    sat -= index
    cell *= _SATS - 1
    cell += index
    index = hue.astype(np.int64)  # 16 itself, a rounding error away from hue 0, is folded back below
    hue -= index
    index &= _HUES - 1
    cell *= _HUES
    cell += index
    cell += (np.arange(count) * _CELLS)[:, None]

    flat = cell.ravel()
    value_sat = value * sat
    monomials: tuple[np.ndarray | None, ...] = (
        None, hue, sat, sat * hue, value, value * hue, value_sat, value_sat * hue,
    )  # fmt: skip
    sums = np.empty((8, count * _CELLS))
    for row, weights in zip(sums, monomials, strict=True):
        row[:] = np.bincount(flat, None if weights is None else weights.ravel(), minlength=count * _CELLS)
    shares = sums.reshape(2, 2, 2, count * _CELLS)
    for axis in range(3):  # monomials (1, x) → shares (1 − x, x), one axis at a time
        lower = shares.take(0, axis=axis)
        upper = shares.take(1, axis=axis)
        shares = np.stack([lower - upper, upper], axis=axis)
    bins = _CORNERS.transpose(1, 2, 3, 0)[..., None, :] + (np.arange(count) * HISTOGRAM_BINS)[:, None]
    total = np.bincount(bins.ravel(), shares.reshape(2, 2, 2, count, _CELLS).ravel(), minlength=count * HISTOGRAM_BINS)
    return np.maximum(total.reshape(count, HISTOGRAM_BINS), 0.0) / pixels


def thumbnails(planes: np.ndarray) -> np.ndarray:
    """uint8 `[B, 27, 48, 3]` area-averaged halves of uint8 `[B, 3, 54, 96]` rasters."""
    quads = planes.reshape(len(planes), 3, THUMB_HEIGHT, 2, THUMB_WIDTH, 2).sum(axis=(3, 5), dtype=np.uint16)
    return ((quads + 2) // 4).astype(np.uint8).transpose(0, 2, 3, 1)


@dataclass
class DenseSignals:
    """Collects rasters in display order and measures them in small batches.

    Memory is a few float32 per frame plus one batch of rasters. `on_thumbnails` receives each batch's thumbnails.
    """

    on_thumbnails: Callable[[np.ndarray], None] | None = None
    batch: int = 8
    hist_l1: list[np.ndarray] = field(default_factory=list)
    luma_mean: list[np.ndarray] = field(default_factory=list)
    lowres_mad: list[np.ndarray] = field(default_factory=list)
    _pending: list[np.ndarray] = field(default_factory=list)
    _last_raster: np.ndarray | None = None
    _last_histogram: np.ndarray | None = None

    def add(self, planes: np.ndarray) -> None:
        """One frame: uint8 `[3, 54, 96]` RGB planes."""
        self._pending.append(planes)
        if len(self._pending) >= self.batch:
            self._flush()

    def finish(self) -> dict[str, np.ndarray]:
        """`hist_l1`, `luma_mean`, `lowres_mad` as float32 `[F]`; row 0 of the first and the last is NaN."""
        if self._pending:
            self._flush()
        return {
            name: np.concatenate(getattr(self, name)).astype(np.float32)
            for name in ("hist_l1", "luma_mean", "lowres_mad")
        }

    def _flush(self) -> None:
        rasters = np.stack(self._pending)
        self._pending.clear()
        histograms = hsv_histograms(rasters)
        means = rasters.reshape(len(rasters), 3, -1).sum(axis=2, dtype=np.uint32) / (RASTER_WIDTH * RASTER_HEIGHT)
        self.luma_mean.append(means @ np.array(LUMA_WEIGHTS) / 255.0)
        missing = np.full((1, HISTOGRAM_BINS), np.nan)
        before = missing if self._last_histogram is None else self._last_histogram[None]
        steps = np.abs(np.diff(np.concatenate([before, histograms]), axis=0)).sum(axis=1) / 2
        self.hist_l1.append(np.minimum(steps, 1.0))
        earlier = rasters[:1] if self._last_raster is None else self._last_raster[None]
        previous = np.concatenate([earlier, rasters[:-1]])
        difference = np.maximum(rasters, previous) - np.minimum(rasters, previous)
        mad = difference.reshape(len(rasters), -1).sum(axis=1, dtype=np.uint32) / (255.0 * rasters[0].size)
        if self._last_raster is None:
            mad[0] = np.nan
        self.lowres_mad.append(mad)
        self._last_raster, self._last_histogram = rasters[-1], histograms[-1]
        if self.on_thumbnails is not None:
            self.on_thumbnails(thumbnails(rasters))
