"""Technical quality of one frame: sharpness, noise, exposure, colour and borders.

Luma is 0.2126 R + 0.7152 G + 0.0722 B, as a share of full scale. It is computed in whole ten-thousandths of a grey
level, which float32 holds exactly, so a pixel at a limit of exposure is on its right side.

Method: luma is 0.2126 R + 0.7152 G + 0.0722 B of a stored frame, / 255. Sobel and Laplacian see the picture mirrored at
its border without repeating the outermost pixels (OpenCV's default). Pixels are black up to `underexposed_level`. Hue
is that of OpenCV's 8-bit HSV, in steps of 2°; S · V is (max − min) of R, G, B / 255. The primary face is the largest
box, from floor(x1, y1) to ceil(x2, y2) pixels.

Method: the diagonal coefficients are those of the decimated transform whose support lies inside the picture: rows and
columns 0, 2, 4, … of the luma filtered in both directions with (1 − √3, √3 − 3, 3 + √3, −1 − √3) / (4√2), the first
weight on the row or column itself. Colourfulness is √(σ²(rg) + σ²(yb)) + 0.3 √(μ²(rg) + μ²(yb)) with rg = R − G and
yb = (R + G)/2 − B.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trendflow.contracts.thresholds import THRESHOLDS

FRAME_MEASURES = (
    "sharpness_tenengrad_log",
    "sharpness_laplacian_log",
    "noise_sigma",
    "luma_mean",
    "luma_contrast",
    "underexposure_ratio",
    "overexposure_ratio",
    "saturation_mean",
    "colorfulness",
    "warm_cool_balance",
    "hue_entropy",
    "letterbox_frac",
)
FACE_MEASURES = ("face_sharpness_log", "face_luma_mean")

_LUMA = np.array([[2126.0, 7152.0, 722.0]], dtype=np.float32)
_LUMA_UNIT = 10_000  # steps of `_LUMA` per grey level
_FULL_SCALE = 255
# Opponent axes of Hasler and Süsstrunk: R − G and (R + G)/2 − B.
_OPPONENTS = np.array([[1.0, -1.0, 0.0], [0.5, 0.5, -1.0]], dtype=np.float32)
_OPPONENT_MEAN_WEIGHT = 0.3
_HUES = 12
# High-pass filter of the Daubechies wavelet with two vanishing moments: blind to the slopes of shading.
_ROOT3 = math.sqrt(3.0)
_WAVELET = np.array([1 - _ROOT3, _ROOT3 - 3, 3 + _ROOT3, -1 - _ROOT3], dtype=np.float32) / (4 * math.sqrt(2.0))
_MAD_OF_NORMAL = 0.6745  # median absolute value of a standard normal variable


@dataclass(frozen=True)
class ExposureConstants:
    """Limits of exposure in grey levels of 255; the floor keeps the logarithm of a flat picture finite."""

    underexposed_level: float
    overexposed_level: float
    hue_weight_min: float
    sharpness_floor: float
    flicker_mean_s: float
    flicker_reach_s: float
    dark_luma: float
    blurry_tenengrad_log: float
    clipped_overexposure: float


QUALITY = THRESHOLDS.bind("shot_quality", ExposureConstants)


def measure(frame: np.ndarray, face: tuple[int, int, int, int] | None) -> np.ndarray:
    """`FRAME_MEASURES` then `FACE_MEASURES` of a uint8 RGB frame `[H, W, 3]`, float64.

    `face` is the primary face as x1, y1, x2, y2 in pixels, end exclusive; without it the face measures are NaN.
    """
    import cv2

    pixels = frame.astype(np.float32)
    levels = cv2.transform(pixels, _LUMA)
    luma = levels / (_LUMA_UNIT * _FULL_SCALE)
    across, down = (cv2.Sobel(luma, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    energy = across * across + down * down
    _, laplacian_std = cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_32F))
    luma_mean, luma_std = (float(value[0, 0]) for value in cv2.meanStdDev(luma))
    red, _, blue, _ = cv2.mean(pixels)
    saturation, hue_entropy = hue_and_saturation(frame)
    face_sharpness = face_luma = math.nan
    if face is not None:
        x1, y1, x2, y2 = face
        face_sharpness = _log_energy(_mean(energy[y1:y2, x1:x2]))
        face_luma = _mean(luma[y1:y2, x1:x2])
    return np.array(
        [
            _log_energy(_mean(energy)),
            _log_energy(float(laplacian_std[0, 0]) ** 2),
            noise_sigma(luma),
            luma_mean,
            luma_std,
            np.count_nonzero(levels <= QUALITY.underexposed_level * _LUMA_UNIT) / levels.size,
            np.count_nonzero(levels >= QUALITY.overexposed_level * _LUMA_UNIT) / levels.size,
            saturation,
            colorfulness(pixels),
            (red - blue) / _FULL_SCALE,
            hue_entropy,
            letterbox_share(levels <= QUALITY.underexposed_level * _LUMA_UNIT),
            face_sharpness,
            face_luma,
        ]
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64))


def _log_energy(value: float) -> float:
    return math.log10(QUALITY.sharpness_floor + value)


def noise_sigma(luma: np.ndarray) -> float:
    """Standard deviation of Gaussian noise in grey levels of 255; NaN below 4×4 pixels.

    Median absolute diagonal wavelet coefficient at the finest scale ÷ 0.6745 (Donoho and Johnstone, "Ideal spatial
    adaptation by wavelet shrinkage", 1994): edges fill few coefficients and hardly move a median.
    """
    import cv2

    height, width = luma.shape
    if min(height, width) < len(_WAVELET):
        return math.nan
    filtered = cv2.sepFilter2D(luma, cv2.CV_32F, _WAVELET, _WAVELET, anchor=(0, 0))
    # The decimated transform, without the coefficients whose support leaves the picture.
    diagonal = filtered[: height - 3 : 2, : width - 3 : 2]
    return float(np.median(np.abs(diagonal))) / _MAD_OF_NORMAL * _FULL_SCALE


def colorfulness(pixels: np.ndarray) -> float:
    """Hasler and Süsstrunk, "Measuring colourfulness in natural images" (2003), of float32 RGB 0…255."""
    import cv2

    mean, std = cv2.meanStdDev(cv2.transform(pixels, _OPPONENTS))
    return float(np.hypot(*std[:, 0]) + _OPPONENT_MEAN_WEIGHT * np.hypot(*mean[:, 0]))


def hue_and_saturation(frame: np.ndarray) -> tuple[float, float]:
    """Mean HSV saturation, and the entropy of hue weighted by chroma S·V as a share of ln 12.

    Bin k is centred on 30k°, so that pure colours lie on no edge. The entropy is NaN where the mean chroma is too
    small for hue to mean anything.
    """
    import cv2

    red, green, blue = cv2.split(frame)
    value = cv2.max(cv2.max(red, green), blue)
    chroma = value - cv2.min(cv2.min(red, green), blue)
    # Saturation is chroma / value, so its sum needs one division per grey level and none per pixel.
    by_value = np.bincount(value.ravel(), chroma.ravel(), minlength=256)[1:]
    saturation = float((by_value / np.arange(1, 256)).sum()) / value.size
    if by_value.sum() < QUALITY.hue_weight_min * _FULL_SCALE * value.size:
        return saturation, math.nan
    half_degrees = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)[..., 0]
    weights = np.bincount(half_degrees.ravel(), chroma.ravel(), minlength=180)
    # 15 half degrees to a bin; the roll puts hue 0 into the middle of the first.
    bins = np.roll(weights, 7).reshape(_HUES, -1).sum(axis=1)
    shares = bins[bins > 0] / bins.sum()
    return saturation, float(-(shares * np.log(shares)).sum() / math.log(_HUES)) + 0.0


def letterbox_share(black: np.ndarray) -> float:
    """Share of the frame covered by black bars: rows and columns that are black from a border inward.

    `black` marks the black pixels `[H, W]`. Black rows within the picture do not count.
    """
    rows, columns = np.asarray(black.all(axis=1)), np.asarray(black.all(axis=0))
    return 1.0 - _inner_share(rows) * _inner_share(columns)


def _inner_share(black: np.ndarray) -> float:
    """Share of what lies between the first and the last line that is not black."""
    bright = np.flatnonzero(~black)
    return (bright[-1] - bright[0] + 1) / len(black) if len(bright) else 0.0
