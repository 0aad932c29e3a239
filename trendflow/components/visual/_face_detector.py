"""Frames → faces in analysis pixels, with the model the role `face_detector` is mapped to.

CenterFace (Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2019) is anchor-free: per
cell a score, the logarithm of height and width, the offset of the centre and five points relative to the box.

Method: where `heatmap` at row r and column c of the output is at least `score_threshold`, there is a face of height and
width s · exp(`scale`) around s · ((r, c) + `offset` + ½) on the canvas, y before x, s = `output_stride`. Boxes are cut
to the frame, dropped if a side is below 1 px, suppressed from the best score down where the IoU with a kept one exceeds
`nms_iou`, and ordered by area, largest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trendflow.components._entry import number
from trendflow.components.visual._boxes import areas, clip_boxes, non_maximum_suppression
from trendflow.components.visual._frame_batches import StageTimer
from trendflow.components.visual._preprocess import FramePreprocessing
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.interface import ModelHandle

# `scale` and `offset` hold y before x; `landmarks` holds y, x of left eye, right eye, nose, left and right mouth corner
# as seen in the image.
MAPS = ("heatmap", "scale", "offset", "landmarks")
MIN_BOX_SIDE_PX = 1.0
LEFT_EYE, RIGHT_EYE = 0, 1


@dataclass(frozen=True)
class Faces:
    """Faces of one frame, largest first, in analysis pixels.

    `boxes` float32 `[n, 4]` are cut to the frame; `full_boxes` float64 may reach beyond it; `points` float64
    `[n, 5, 2]`: left eye, right eye, nose, left and right corner of the mouth, left as seen in the image.
    """

    boxes: np.ndarray
    full_boxes: np.ndarray
    scores: np.ndarray
    points: np.ndarray

    @classmethod
    def none(cls) -> Faces:
        return cls(np.zeros((0, 4), np.float32), np.zeros((0, 4)), np.zeros(0, np.float32), np.zeros((0, 5, 2)))

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, rows: np.ndarray | slice) -> Faces:
        return Faces(self.boxes[rows], self.full_boxes[rows], self.scores[rows], self.points[rows])

    def roll(self) -> np.ndarray:
        """Angle of the eye line to the image's x axis in radians, clockwise positive, `[n]`."""
        line = self.points[:, RIGHT_EYE] - self.points[:, LEFT_EYE]
        return np.arctan2(line[:, 1], line[:, 0])


class FaceDetector:
    """One face detector with the preprocessing and thresholds of its entry."""

    def __init__(self, model: ModelHandle, timer: StageTimer, max_faces: int) -> None:
        entry = model.entry
        missing = set(MAPS) - {spec.name for spec in entry.outputs}
        if missing:
            raise TrendFlowError("model_spec_invalid", f"The entry {entry.name} lacks the outputs {sorted(missing)}.")
        self.score_threshold = number(entry, "postprocessing", "score_threshold", 0, 1)
        self.nms_iou = number(entry, "postprocessing", "nms_iou", 0, 1)
        self.stride = int(number(entry, "postprocessing", "output_stride", 1))
        self._model, self._timer, self._max_faces = model, timer, max_faces
        self.max_batch, self._input = entry.max_batch_size, entry.inputs[0].name
        self._preprocess = FramePreprocessing.of(entry)

    def __call__(self, frames: np.ndarray) -> list[Faces]:
        """uint8 RGB `[n, H, W, 3]` → at most `max_faces` faces per frame."""
        with self._timer.stage("detector_preprocess"):
            images, placement = self._preprocess(frames)
        with self._timer.stage("detector_inference"):
            outputs = self._model.infer({self._input: images})
        with self._timer.stage("detector_postprocess"):
            height, width = frames.shape[1:3]
            found = []
            for image in range(len(frames)):
                boxes, scores, points = decode_centerface(outputs, image, self.stride, self.score_threshold)
                boxes = placement.to_frame(boxes)
                points = placement.to_frame(points.reshape(-1, 10)).reshape(-1, 5, 2)
                found.append(self._select(boxes, scores, points, width, height))
            return found

    def _select(self, boxes: np.ndarray, scores: np.ndarray, points: np.ndarray, width: int, height: int) -> Faces:
        inside = clip_boxes(boxes.astype(np.float32), width, height)
        faces = Faces(inside, boxes, scores.astype(np.float32), points)
        faces = faces.take(((inside[:, 2:] - inside[:, :2]) >= MIN_BOX_SIDE_PX).all(axis=1))
        faces = faces.take(non_maximum_suppression(faces.boxes, faces.scores, self.nms_iou))
        # Stable: equal areas stay in the order of their scores.
        return faces.take(np.argsort(-areas(faces.boxes), kind="stable")[: self._max_faces])


def decode_centerface(
    outputs: Mapping[str, np.ndarray], image: int, stride: int, score_threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes `[n, 4]`, scores `[n]` and points `[n, 5, 2]` (x, y) of one image in canvas pixels."""
    heatmap, scale, offset, landmarks = (outputs[name][image].astype(np.float64) for name in MAPS)
    rows, columns = np.nonzero(heatmap[0] >= score_threshold)
    cells = np.stack([rows, columns], axis=1)  # y, x
    size = np.exp(scale[:, rows, columns].T) * stride
    centre = (cells + offset[:, rows, columns].T + 0.5) * stride
    low = centre - size / 2
    boxes = np.concatenate([low[:, ::-1], (low + size)[:, ::-1]], axis=1)
    points = landmarks[:, rows, columns].T.reshape(-1, 5, 2) * size[:, None] + low[:, None]
    return boxes, heatmap[0, rows, columns], points[..., ::-1]
