"""Frames in the report: the filmstrip, one picture per shot, and what the detectors saw."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trendflow.presentation.formatting import clock, fixed
from trendflow.presentation.run_view import RunView
from trendflow.presentation.series import spread
from trendflow.presentation.thumbnails import FILMSTRIP_FRAMES, MAX_SHOT_FRAMES, Thumbnail
from trendflow.presentation.timeline import shot_label

GALLERY_FRAMES = 6
MAX_BOXES = 12


@dataclass(frozen=True)
class Box:
    """A detection in percent of the picture. `kind` ∈ object, face."""

    kind: str
    left: float
    top: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class Picture:
    src: str
    width: int
    height: int
    time: str
    alt: str
    boxes: Sequence[Box] = ()


@dataclass(frozen=True)
class Shot:
    """One card of the story board; `picture` is None when no frame of the shot is at hand."""

    number: int
    span: str
    length: str
    picture: Picture | None


def filmstrip(view: RunView) -> list[Picture]:
    """Pictures for equal parts of the time axis, each the one nearest to the middle of its part."""
    thumbs, duration = view.thumbnails, view.duration_sec
    if not thumbs or duration is None:
        return []
    times = np.array([thumb.time_s for thumb in thumbs])
    count = min(FILMSTRIP_FRAMES, len(thumbs))
    targets = (np.arange(count) + 0.5) * duration / count
    return [_picture(thumbs[int(np.argmin(np.abs(times - target)))]) for target in targets]


def storyboard(view: RunView) -> tuple[list[Shot], int]:
    """Cards of the first shots, and the number of all shots."""
    cuts = view.arrays("cut_detection")
    if "shot_start_time_s" not in cuts:
        return [], 0
    starts, ends = cuts["shot_start_time_s"].tolist(), cuts["shot_end_time_s"].tolist()
    cards = []
    for k, (start, end) in enumerate(zip(starts[:MAX_SHOT_FRAMES], ends[:MAX_SHOT_FRAMES], strict=True)):
        inside = [thumb for thumb in view.thumbnails if start <= thumb.time_s < end]
        middle = min(inside, key=lambda thumb: abs(thumb.time_s - (start + end) / 2), default=None)
        picture = _picture(middle, shot_label(k, start, end)) if middle else None
        cards.append(Shot(k + 1, f"{clock(start, 1)}–{clock(end, 1)}", fixed(end - start, 1, "s"), picture))
    return cards, len(starts)


def gallery(view: RunView) -> list[Picture]:
    """A few pictures with the boxes of both detectors, spread over the video; up to half are chosen for faces."""
    found = [(thumb, boxes) for thumb in view.thumbnails if (boxes := frame_boxes(view, thumb.union_index))]
    with_face = [k for k, (_, boxes) in enumerate(found) if any(box.kind == "face" for box in boxes)]
    chosen = {with_face[k] for k in spread(len(with_face), GALLERY_FRAMES // 2)}
    others = [k for k in range(len(found)) if k not in chosen]
    chosen.update(others[k] for k in spread(len(others), GALLERY_FRAMES - len(chosen)))
    return [_picture(found[k][0], boxes=found[k][1]) for k in sorted(chosen)]


def frame_boxes(view: RunView, union_index: int) -> list[Box]:
    """The strongest objects and all faces of one union frame; large boxes first, so that small ones lie on top."""
    boxes: list[Box] = []
    objects = view.arrays("core_object_detections")
    rows = _rows(objects.get("frame_indices"), objects.get("det_row_splits"), union_index)
    if rows is not None:
        for k in sorted(range(rows.start, rows.stop), key=lambda row: -objects["scores"][row])[:MAX_BOXES]:
            name = str(objects["class_names"][objects["class_ids"][k]])
            boxes.append(_box("object", objects["boxes_norm"][k], f"{name} {fixed(float(objects['scores'][k]), 2)}"))
    faces = view.arrays("core_face_landmarks")
    rows = _rows(faces.get("frame_indices"), faces.get("face_row_splits"), union_index)
    if rows is not None:
        boxes += [_box("face", faces["face_boxes_norm"][k], "face") for k in range(rows.start, rows.stop)]
    return sorted(boxes, key=lambda box: -box.width * box.height)


def _rows(indices: np.ndarray | None, splits: np.ndarray | None, union_index: int) -> slice | None:
    if indices is None or splits is None:
        return None
    at = np.flatnonzero(indices == union_index)
    return slice(int(splits[at[0]]), int(splits[at[0] + 1])) if at.size else None


def _box(kind: str, corners: np.ndarray, label: str) -> Box:
    x1, y1, x2, y2 = (float(np.clip(value, 0.0, 1.0)) * 100 for value in corners)
    return Box(kind, round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2), label)


def _picture(thumb: Thumbnail, alt: str = "", boxes: Sequence[Box] = ()) -> Picture:
    source = "data:image/jpeg;base64," + base64.b64encode(thumb.jpeg).decode("ascii")
    time = clock(thumb.time_s, 1)
    if boxes:
        alt = f"Frame at {time} with {', '.join(box.label for box in boxes)}"
    return Picture(source, thumb.width, thumb.height, time, alt or f"Frame at {time}", boxes)
