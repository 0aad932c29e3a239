"""Axis-aligned boxes `x1, y1, x2, y2`: overlap, suppression, clipping. All functions are pure and deterministic."""

from __future__ import annotations

import numpy as np


def areas(boxes: np.ndarray) -> np.ndarray:
    """Areas of boxes `[n, 4]`; inverted boxes count as 0."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return sides[:, 0] * sides[:, 1]


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of `a` `[n, 4]` with every box of `b` `[m, 4]`: float64 `[n, m]`.

    Two boxes without area have IoU 0.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.maximum(high - low, 0)
    shared = sides[..., 0] * sides[..., 1]
    union = areas(a)[:, None] + areas(b)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def non_maximum_suppression(
    boxes: np.ndarray, scores: np.ndarray, iou_threshold: float, class_ids: np.ndarray | None = None
) -> np.ndarray:
    """Greedy suppression: positions of the kept boxes, best score first (ties: lower position).

    A box falls when it overlaps a better one of its class by more than `iou_threshold`. Without `class_ids` all
    boxes are of one class.
    """
    order = np.argsort(-scores, kind="stable")
    if len(order) == 0:
        return order
    overlap = iou_matrix(boxes[order], boxes[order]) > iou_threshold
    if class_ids is not None:
        ranked = class_ids[order]
        overlap &= ranked[:, None] == ranked[None, :]
    kept = np.ones(len(order), dtype=bool)
    for rank in range(len(order)):
        if kept[rank]:
            kept[rank + 1 :] &= ~overlap[rank, rank + 1 :]
    return order[kept]


def clip_boxes(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """Boxes cut to the frame `[0, width] × [0, height]`."""
    return np.clip(boxes, 0, np.array([width, height, width, height], dtype=boxes.dtype))


def as_norm(boxes_px: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pixel boxes `[n, 4]` → `norm_xy` ([0, 1] of the frame), float32."""
    return (boxes_px / np.array([width, height, width, height], dtype=np.float64)).astype(np.float32)
