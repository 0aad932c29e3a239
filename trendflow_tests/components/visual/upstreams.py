"""Synthetic upstream artifacts for components that read others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trendflow.components.base import Upstream

Box = tuple[float, float, float, float]

CLASSES = ("chair", "person")


def upstream(name: str, arrays: Mapping[str, np.ndarray], **meta: Any) -> Upstream:
    return Upstream(name, "ok", None, arrays, meta)


def indices_and_times(times_s: np.ndarray) -> dict[str, np.ndarray]:
    return {"frame_indices": np.arange(len(times_s), dtype=np.int32), "times_s": times_s}


def cuts(shot_starts_s: Sequence[float], duration_s: float, times_s: np.ndarray, dense_s: np.ndarray) -> Upstream:
    """Shots that begin at the given times; samples and dense frames belong to them by their own time."""
    starts = np.array(shot_starts_s, dtype=np.float64)
    frames = np.searchsorted(dense_s, starts)
    return upstream(
        "cut_detection",
        {
            "shot_start_time_s": starts,
            "shot_end_time_s": np.append(starts[1:], duration_s),
            "shot_start_source_frame": frames,
            "shot_end_source_frame": np.append(frames[1:], len(dense_s)),
            "union_shot_ids": (np.searchsorted(starts, times_s, side="right") - 1).astype(np.int32),
        },
    )


def objects(times_s: np.ndarray, people: Mapping[int, Sequence[Box]] = {}, chairs: int = 0) -> Upstream:
    """`people` maps frames to person boxes; every frame also has `chairs` chairs that fill the picture."""
    boxes: list[Box] = []
    classes: list[int] = []
    counts, areas = [], []
    for i in range(len(times_s)):
        here = list(people.get(i, ()))
        boxes += [(0.0, 0.0, 1.0, 1.0)] * chairs + here
        classes += [0] * chairs + [1] * len(here)
        counts.append(chairs + len(here))
        areas.append(max(((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in here), default=0.0))
    return upstream(
        "core_object_detections",
        {
            **indices_and_times(times_s),
            "det_row_splits": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            "boxes_norm": np.array(boxes, dtype=np.float32).reshape(-1, 4),
            "class_ids": np.array(classes, dtype=np.int32),
            "class_names": np.array(CLASSES),
            "det_count": np.array(counts, dtype=np.int32),
            "max_person_area_frac": np.array(areas, dtype=np.float32),
        },
        coord_space={"boxes": "px", "boxes_norm": "norm_xy"},
    )


def faces(times_s: np.ndarray, boxes: Mapping[int, Sequence[Box]] = {}) -> Upstream:
    counts = [len(boxes.get(i, ())) for i in range(len(times_s))]
    rows = [box for i in range(len(times_s)) for box in boxes.get(i, ())]
    return upstream(
        "core_face_landmarks",
        {
            **indices_and_times(times_s),
            "face_row_splits": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            "face_boxes_norm": np.array(rows, dtype=np.float32).reshape(-1, 4),
            "face_count": np.array(counts, dtype=np.int32),
        },
        coord_space="norm_xy",
    )


def dense(dense_s: np.ndarray, luma: np.ndarray | float = 0.5) -> dict[str, np.ndarray]:
    """The dense signals that quality reads."""
    return {
        "pts_sec": dense_s,
        "luma_mean": np.broadcast_to(np.float32(luma), dense_s.shape).astype(np.float32),
        "corrupt_mask": np.zeros(len(dense_s), dtype=bool),
    }


def prompts(times_s: np.ndarray, sets: Mapping[str, tuple[Sequence[str], np.ndarray]]) -> Upstream:
    """core_clip with prompt sets: name → (prompt names, probabilities `[N, P]`)."""
    arrays = indices_and_times(times_s)
    for name, (names, probs) in sets.items():
        arrays[f"{name}_prompts"] = np.array(names)
        arrays[f"{name}_probs"] = probs.astype(np.float32)
    return upstream("core_clip", arrays)
