"""Synthetic camera moves over a picture, with the motion known in closed form."""

from __future__ import annotations

import cv2
import numpy as np

from trendflow_tests.components.visual.clips import Clip, clip_of

WIDTH, HEIGHT = 568, 320


def texture(seed: int, width: int = 1200, height: int = 900) -> np.ndarray:
    """A synthetic colour picture uint8 `[height, width, 3]` with detail of every size, like a photograph."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), dtype=np.float32)
    for size in (3, 10, 30, 90):
        coarse = rng.standard_normal((height // size + 2, width // size + 2, 3)).astype(np.float32)
        octave = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        picture += octave / octave.std() * size**0.25
    return np.clip(127 + 35 * picture / picture.std(), 0, 255).astype(np.uint8)


def view(
    picture: np.ndarray,
    *,
    zoom: float = 1.0,
    rotation: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    width: int = WIDTH,
    height: int = HEIGHT,
) -> np.ndarray:
    """The middle of `picture`, enlarged, turned clockwise (rad) about the frame's centre, then shifted (px)."""
    turn = zoom * np.array([[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]])
    source = np.array([picture.shape[1] - 1, picture.shape[0] - 1]) / 2
    target = np.array([width - 1, height - 1]) / 2 + shift
    matrix = np.column_stack([turn, target - turn @ source])
    return cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_CUBIC)


def film(
    picture: np.ndarray,
    frames: int,
    *,
    zoom: float = 1.0,
    rotation: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    gap_s: float = 0.25,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> Clip:
    """Each frame is the one before, enlarged, turned and shifted by these amounts; the middle frame is unmoved."""
    steps = np.arange(frames) - frames // 2
    views = [
        view(
            picture,
            zoom=zoom**step,
            rotation=rotation * step,
            shift=(shift[0] * step, shift[1] * step),
            width=width,
            height=height,
        )
        for step in steps
    ]
    return clip_of(np.stack(views), gap_s)
