"""Pictures and camera moves made by formula."""

from __future__ import annotations

import cv2
import numpy as np

HEIGHT, WIDTH = 54, 96


def picture(seed: int, height: int = 3 * HEIGHT, width: int = 6 * WIDTH) -> np.ndarray:
    """A textured colour picture uint8 `[height, width, 3]`; another seed gives an unrelated one."""
    rng = np.random.default_rng(seed)
    coarse = cv2.GaussianBlur(rng.standard_normal((height, width, 3)).astype(np.float32), (0, 0), 12)
    fine = cv2.GaussianBlur(rng.standard_normal((height, width, 3)).astype(np.float32), (0, 0), 2)
    texture = coarse / coarse.std() + 0.5 * fine / fine.std()
    base = rng.uniform(60, 190, 3)
    return np.clip(base + 30 * texture, 12, 243).astype(np.uint8)


def pan(image: np.ndarray, frames: int, pixels_per_frame: float, start: float = 0.0) -> np.ndarray:
    """A window of 54x96 that glides to the right over `image`."""
    shots = []
    for i in range(frames):
        shift = np.array([[1, 0, -(start + i * pixels_per_frame)], [0, 1, -20]], dtype=np.float32)
        shots.append(cv2.warpAffine(image, shift, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR))
    return np.stack(shots)


def shot(seed: int, frames: int, pixels_per_frame: float = 0.4) -> np.ndarray:
    """A slow pan over the picture of that seed."""
    return pan(picture(seed), frames, pixels_per_frame)


def brighten(frames: np.ndarray, offset: float) -> np.ndarray:
    return np.clip(frames.astype(np.int16) + round(offset), 0, 255).astype(np.uint8)


def dim(frames: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Each frame times its gain."""
    return np.round(frames * gains[:, None, None, None]).astype(np.uint8)


def dissolve(before: np.ndarray, after: np.ndarray, frames: int) -> np.ndarray:
    """`before`, then `frames` blended frames in which both go on, then the rest of `after`."""
    weight = (np.arange(1, frames + 1) / (frames + 1))[:, None, None, None]
    blend = before[-frames:] * (1 - weight) + after[:frames] * weight
    return np.concatenate([before[:-frames], np.round(blend).astype(np.uint8), after[frames:]])
