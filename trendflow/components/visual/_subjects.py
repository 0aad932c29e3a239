"""People and faces of each frame as upstream components found them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from trendflow.components.base import Upstream
from trendflow.components.visual._boxes import areas

PERSON = "person"


@dataclass(frozen=True)
class LargestBox:
    """Largest box of each frame as x1, y1, x2, y2 in fractions of the frame, float64 `[N, 4]`; NaN without one."""

    boxes: np.ndarray

    @classmethod
    def of_faces(cls, faces: Upstream) -> LargestBox:
        boxes = faces.arrays["face_boxes_norm"].astype(np.float64)
        return cls(_largest(boxes, faces.arrays["face_row_splits"]))

    @classmethod
    def of_people(cls, objects: Upstream) -> LargestBox:
        """Without a class for people in the detector's list no frame has one."""
        arrays, names = objects.arrays, objects.arrays["class_names"].tolist()
        boxes = arrays["boxes_norm"].astype(np.float64)
        is_person = arrays["class_ids"] == names.index(PERSON) if PERSON in names else np.zeros(len(boxes), dtype=bool)
        kept = np.concatenate([[0], np.cumsum(is_person)])
        return cls(_largest(boxes[is_person], kept[arrays["det_row_splits"]]))

    @property
    def area(self) -> np.ndarray:
        """Share of the frame, float64 `[N]`; a frame without a box has a measured 0."""
        return np.nan_to_num(areas(self.boxes))

    def center_offset(self, width: int, height: int) -> np.ndarray:
        """Distance of the box centre from the frame centre in pixels ÷ half the diagonal; NaN without a box."""
        centre = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2 - 0.5
        return np.hypot(centre[:, 0] * width, centre[:, 1] * height) / (np.hypot(width, height) / 2)

    def pixels(self, row: int, width: int, height: int) -> tuple[int, int, int, int] | None:
        """The pixels a box touches as x1, y1, x2, y2, end exclusive and inside the frame; None without a box."""
        box = self.boxes[row]
        if np.isnan(box).any():
            return None
        x1, y1 = np.floor(box[:2] * (width, height)).astype(int).tolist()
        x2, y2 = np.ceil(box[2:] * (width, height)).astype(int).tolist()
        x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _largest(boxes: np.ndarray, splits: np.ndarray) -> np.ndarray:
    size = areas(boxes)
    found = np.full((len(splits) - 1, 4), np.nan)
    for i, (first, last) in enumerate(itertools.pairwise(splits.tolist())):
        if last > first:
            found[i] = boxes[first + int(np.argmax(size[first:last]))]
    return found
