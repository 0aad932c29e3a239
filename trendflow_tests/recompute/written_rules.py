"""Rules of docs/components.md that several components share, written down once more without the product's code."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from PIL import Image

LUMA = np.array([0.2126, 0.7152, 0.0722])

Margins = tuple[int, int, int, int]
"""Left and top margin and the width and height of the scaled frame on the canvas."""


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs(model: onnxruntime.InferenceSession, *inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Output name → array for inputs in the order of the graph."""
    given = {spec.name: array for spec, array in zip(model.get_inputs(), inputs, strict=True)}
    return dict(zip((spec.name for spec in model.get_outputs()), model.run(None, given), strict=True))


def letterboxed(frame: np.ndarray, facts: dict[str, Any]) -> tuple[np.ndarray, Margins]:
    """uint8 `[h, w, 3]` canvas of a frame for the geometry `letterbox` with bilinear scaling."""
    height, width = frame.shape[:2]
    if "longer_side" in facts:
        ratio, step = facts["longer_side"] / max(width, height), facts["multiple_of"]
        box = [math.ceil(round(side * ratio) / step) * step for side in (width, height)]
    else:
        box = [facts["width"], facts["height"]]
        ratio = min(box[0] / width, box[1] / height)
    inner = round(width * ratio), round(height * ratio)
    left, top = (box[0] - inner[0]) // 2, (box[1] - inner[1]) // 2
    canvas = np.full((box[1], box[0], 3), facts["pad_value"], np.uint8)
    canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(frame, inner, interpolation=cv2.INTER_LINEAR)
    return canvas, (left, top, *inner)


def centre_crop(frame: np.ndarray, facts: dict[str, Any], kernel: Image.Resampling) -> np.ndarray:
    """uint8 crop of a frame for the geometry `shorter_side_center_crop`."""
    height, width = frame.shape[:2]
    ratio = facts["resize_shorter"] / min(width, height)
    full = int(width * ratio + 1e-9), int(height * ratio + 1e-9)
    scaled = np.asarray(Image.fromarray(frame).resize(full, kernel))
    left, top = round((full[0] - facts["width"]) / 2), round((full[1] - facts["height"]) / 2)
    return scaled[top : top + facts["height"], left : left + facts["width"]]


def coloured(pictures: np.ndarray, facts: dict[str, Any]) -> np.ndarray:
    """uint8 RGB `[n, h, w, 3]` → float32 `[n, 3, h, w]` in the entry's order and scale."""
    ordered = pictures if facts["color_order"] == "RGB" else pictures[..., ::-1]
    scaled = (ordered.astype(np.float32) - np.float32(facts["mean"])) / np.float32(facts["std"])
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def in_frame(boxes: np.ndarray, margins: Margins, width: int, height: int) -> np.ndarray:
    """Boxes on a canvas → pixels of the frame, cut to it."""
    left, top, inner_width, inner_height = margins
    scale = np.array([width / inner_width, height / inner_height] * 2)
    return np.clip((boxes - np.array([left, top] * 2)) * scale, 0, [width, height, width, height])


def suppressed(boxes: np.ndarray, scores: np.ndarray, limit: float) -> list[int]:
    """Rows that stay, best score first."""
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable").tolist():
        if all(_iou(boxes[row], boxes[other]) <= limit for other in kept):
            kept.append(row)
    return kept


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    across, down = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    shared = max(0.0, across) * max(0.0, down)
    return float(shared / (area(a) + area(b) - shared))


def area(box: np.ndarray) -> Any:
    """Area of one box or of boxes `[n, 4]`."""
    return (box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1])


def fetched(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """`picture` where the vectors `[h, w, 2]` lead, bilinear, its border repeated."""
    height, width = flow.shape[:2]
    to_x = flow[..., 0] + np.arange(width, dtype=np.float32)
    to_y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return cv2.remap(picture, to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
