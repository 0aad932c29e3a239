"""Dense signals computed from their definition with PyAV, OpenCV and plain numpy.

An independent reading of the definition, so cut detection is tested without the Segmenter and the Segmenter
can be compared with it.
"""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np

RASTER = (96, 54)  # width, height
THUMB = (48, 27)
HUES, SATURATIONS, VALUES = 16, 4, 4
BINS = 1 + (VALUES - 1) * (1 + (SATURATIONS - 1) * HUES)


def decode(path: Path, stream: int = 0) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """All frames of one video stream as rasters `[F, 54, 96, 3]` uint8, their pts `[F]` and the time base."""
    rasters: list[np.ndarray] = []
    pts: list[int] = []
    with av.open(str(path)) as container:
        video = container.streams.video[stream]
        video.thread_type = "AUTO"
        time_base = (video.time_base.numerator, video.time_base.denominator)
        for frame in container.decode(video):
            rgb = frame.to_ndarray(format="rgb24")
            rasters.append(cv2.resize(rgb, RASTER, interpolation=cv2.INTER_AREA))
            pts.append(frame.pts)
    return np.stack(rasters), np.array(pts, dtype=np.int64), time_base


def cone_histogram(raster: np.ndarray) -> np.ndarray:
    """148-bin HSV histogram of an RGB uint8 image; pixels shared linearly between neighbouring nodes, sum 1."""
    hsv = cv2.cvtColor(raster.astype(np.float32) / 255, cv2.COLOR_RGB2HSV).reshape(-1, 3)
    hue, saturation, value = hsv[:, 0] / 360 * HUES, hsv[:, 1] * (SATURATIONS - 1), hsv[:, 2] * (VALUES - 1)
    grid = np.zeros((VALUES, SATURATIONS, HUES))
    for v, wv in _nodes(value, VALUES):
        for s, ws in _nodes(saturation, SATURATIONS):
            for h, wh in _nodes(hue, None):
                np.add.at(grid, (v, s, h % HUES), wv * ws * wh)
    merged = [grid[0].sum()]
    for v in range(1, VALUES):
        merged.append(grid[v, 0].sum())
        merged.extend(grid[v, 1:].ravel())
    return np.array(merged) / grid.sum()


def _nodes(position: np.ndarray, last: int | None) -> list[tuple[np.ndarray, np.ndarray]]:
    low = np.floor(position).astype(np.int64)
    if last is not None:
        low = np.clip(low, 0, last - 2)
    share = position - low
    return [(low, 1 - share), (low + 1, share)]


def dense_signals(
    rasters: np.ndarray, pts: np.ndarray, time_base: tuple[int, int], *, thumbs: bool = False
) -> dict[str, np.ndarray]:
    """The arrays of `dense_signals.npz` for rasters `[F, h, w, 3]` uint8 and their timestamps."""
    histograms = np.stack([cone_histogram(raster) for raster in rasters])
    scaled = rasters.astype(np.float32) / 255
    frames = len(rasters)
    first = np.full(1, np.nan)
    signals = {
        "pts": pts.astype(np.int64),
        "time_base": np.array(time_base, dtype=np.int64),
        "pts_sec": (pts - pts[0]) * (time_base[0] / time_base[1]),
        "hist_l1": np.concatenate([first, 0.5 * np.abs(np.diff(histograms, axis=0)).sum(axis=1)]).astype(np.float32),
        "luma_mean": (scaled.reshape(frames, -1, 3).mean(axis=1) @ [0.2126, 0.7152, 0.0722]).astype(np.float32),
        "lowres_mad": np.concatenate([first, np.abs(np.diff(scaled, axis=0)).mean(axis=(1, 2, 3))]).astype(np.float32),
        "corrupt_mask": np.zeros(frames, dtype=bool),
    }
    if thumbs:
        signals["thumb_rgb"] = np.stack([cv2.resize(r, THUMB, interpolation=cv2.INTER_AREA) for r in rasters])
    return signals
