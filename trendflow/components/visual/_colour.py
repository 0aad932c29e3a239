"""Colour as it is seen: CIE L*a*b* of small pictures and the distance between them."""

from __future__ import annotations

import numpy as np

RASTER_WIDTH, RASTER_HEIGHT = 64, 36

# IEC 61966-2-1: linear sRGB to CIE XYZ, and the white point D65 that it maps (1, 1, 1) to.
_SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_D65 = _SRGB_TO_XYZ.sum(axis=1)
# CIE 15: below (6/29)³ the cube root is replaced by its tangent.
_KNEE = 6 / 29


def lab_rasters(frames: np.ndarray) -> np.ndarray:
    """uint8 RGB `[n, H, W, 3]` → L*a*b* of area-averaged 64x36 pictures, float32 `[n, 36, 64, 3]`.

    Averaged as floats: rounding to 8 bits would be a change of colour where there is none.
    """
    import cv2

    small = np.empty((len(frames), RASTER_HEIGHT, RASTER_WIDTH, 3), dtype=np.float32)
    for i, frame in enumerate(frames):
        cv2.resize(frame.astype(np.float32), (RASTER_WIDTH, RASTER_HEIGHT), small[i], interpolation=cv2.INTER_AREA)
    return srgb_to_lab(small / 255)


def srgb_to_lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] `[..., 3]` → CIE 1976 L*a*b* for the white point D65, float32.

    OpenCV's conversion interpolates in a table and is off by up to 0.5, as much as a quiet shot changes.
    """
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    relative = linear @ (_SRGB_TO_XYZ / _D65[:, None]).T
    f = np.where(relative > _KNEE**3, np.cbrt(relative), relative / (3 * _KNEE**2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def mean_delta_e(lab: np.ndarray) -> np.ndarray:
    """Mean CIE76 colour difference of successive pictures `[N, h, w, 3]`, float64 `[N-1]`."""
    distance = np.sqrt(np.square(np.diff(lab, axis=0)).sum(axis=-1))
    return np.asarray(distance.mean(axis=(1, 2), dtype=np.float64))
