"""Soft HSV histogram of a small raster, compiled: measured on every decoded frame, it is the dearest dense signal.

Method: the histogram behind hist_l1 shares every pixel of the raster linearly between the 8 nodes around its hexcone
HSV: 16 hues k/16 (circular), 4 saturations and 4 values 0, ⅓, ⅔, 1. All nodes of value 0 are one bin, and for each
other value all hues of saturation 0 are one, which leaves 148 bins. It sums to 1.
"""

from __future__ import annotations

import os

import numba
import numpy as np

HISTOGRAM_BINS = 148
_HUES, _SATS, _VALS = 16, 4, 4
_CELLS = (_VALS - 1) * (_SATS - 1) * _HUES
# Compiled code is kept between processes only where the deployment names a folder for it.
_KEEP = bool(os.environ.get("NUMBA_CACHE_DIR"))


def _bin_of_node() -> np.ndarray:
    """int `[4 values, 4 saturations, 16 hues]` → bin: black is one bin, greys have no hue."""
    bins = np.empty((_VALS, _SATS, _HUES), dtype=np.int64)
    bins[0] = 0
    bins[1:, 0] = np.arange(1, _VALS)[:, None]
    bins[1:, 1:] = _VALS + np.arange((_VALS - 1) * (_SATS - 1) * _HUES).reshape(_VALS - 1, _SATS - 1, _HUES)
    return bins


def _corner_bins() -> np.ndarray:
    """int `[cells, 8]`: the bins at the corners (value, saturation, hue) of each cell."""
    nodes = _bin_of_node()
    value, sat, hue = np.meshgrid(np.arange(_VALS - 1), np.arange(_SATS - 1), np.arange(_HUES), indexing="ij")
    corners = [
        nodes[value + dv, sat + ds, (hue + dh) % _HUES].ravel() for dv in (0, 1) for ds in (0, 1) for dh in (0, 1)
    ]
    return np.stack(corners, axis=1)


_CORNERS = _corner_bins()


@numba.njit("void(uint8[:,::1], int64[:,::1], float64[::1])", nogil=True, cache=_KEEP, error_model="numpy")
def _accumulate(planes: np.ndarray, corners: np.ndarray, histogram: np.ndarray) -> None:
    # Inside a cell the 8 shares of a pixel are multilinear in its offsets. So the loop over pixels only sums the 8
    # monomials of the offsets per cell; they become shares of the corners once per cell instead of once per pixel.
    sums = np.zeros((corners.shape[0], 8))
    for pixel in range(planes.shape[1]):
        red, green, blue = np.int32(planes[0, pixel]), np.int32(planes[1, pixel]), np.int32(planes[2, pixel])
        top = max(red, green, blue)
        chroma = top - min(red, green, blue)
        value = top * 3.0 / 255.0
        value_cell = min(int(value), 2)
        value -= value_cell
        hue, hue_cell, sat, sat_cell = 0.0, 0, 0.0, 0
        if chroma > 0:
            sat = chroma * 3.0 / top
            sat_cell = min(int(sat), 2)
            sat -= sat_cell
            if top == red:
                hue = (green - blue) / chroma
                if hue < 0.0:
                    hue += 6.0
            elif top == green:
                hue = (blue - red) / chroma + 2.0
            else:
                hue = (red - green) / chroma + 4.0
            hue *= 16.0 / 6.0
            hue_cell = int(hue)
            hue -= hue_cell
            hue_cell %= 16  # 16 itself is a rounding error away from hue 0
        row = sums[(value_cell * 3 + sat_cell) * 16 + hue_cell]
        value_sat = value * sat
        row[0] += 1.0
        row[1] += hue
        row[2] += sat
        row[3] += sat * hue
        row[4] += value
        row[5] += value * hue
        row[6] += value_sat
        row[7] += value_sat * hue
    for cell in range(corners.shape[0]):
        row = sums[cell]
        if row[0] == 0.0:
            continue
        for axis in (1, 2, 4):  # monomials (1, x) → shares (1 − x, x), one axis at a time
            for k in range(8):
                if not k & axis:
                    row[k] -= row[k + axis]
        for k in range(8):
            histogram[corners[cell, k]] += row[k]


def hsv_histogram(planes: np.ndarray) -> np.ndarray:
    """Soft HSV histogram, float64 `[148]` summing to 1, of a uint8 `[3, H, W]` RGB raster.

    Hexcone HSV; every pixel is shared linearly between the 8 nodes around it (16 hues, circular; 4 saturations and 4
    values from 0 to 1).
    """
    flat = np.ascontiguousarray(planes.reshape(3, -1))
    histogram = np.zeros(HISTOGRAM_BINS)
    _accumulate(flat, _CORNERS, histogram)
    # Differences of sums may leave a share an ulp below 0.
    return np.maximum(histogram, 0.0) / flat.shape[1]
