"""Frames → object boxes in analysis pixels, with the model the role `object_detector` is mapped to.

Method: boxes are cut to the frame, dropped if a side is below 1 px, and then suppressed: from the best score down, a
box falls if its IoU with a kept box of its class exceeds `nms_iou`. The boxes of a frame stand in this order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trendflow.components._entry import number
from trendflow.components.visual._boxes import clip_boxes, non_maximum_suppression
from trendflow.components.visual._frame_batches import StageTimer
from trendflow.components.visual._nanodet import NanoDetHead
from trendflow.components.visual._preprocess import FramePreprocessing
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.interface import ModelHandle

PERSON = "person"
MIN_BOX_SIDE_PX = 1.0


@dataclass(frozen=True)
class Detections:
    """Objects of one frame, best score first. Boxes float32 `[n, 4]` px, inside the frame, at least 1 px a side."""

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray


class ObjectDetector:
    """One object detector with the preprocessing, thresholds and class list of its entry."""

    def __init__(self, model: ModelHandle, timer: StageTimer) -> None:
        entry = model.entry
        if PERSON not in entry.class_names:
            raise TrendFlowError("model_spec_invalid", f"The class list of {entry.name} has no class {PERSON!r}.")
        if not entry.class_groups:
            raise TrendFlowError("model_spec_invalid", f"The entry {entry.name} groups no classes.")
        self.entry = entry
        self.score_threshold = number(entry, "postprocessing", "score_threshold", 0, 1)
        self.nms_iou = number(entry, "postprocessing", "nms_iou", 0, 1)
        self._model, self._timer, self._input = model, timer, entry.inputs[0].name
        self._preprocess = FramePreprocessing.of(entry)
        self._head = NanoDetHead.of(entry)

    def __call__(self, frames: np.ndarray) -> list[Detections]:
        """uint8 RGB `[n, H, W, 3]` → detections per frame."""
        with self._timer.stage("preprocess"):
            images, placement = self._preprocess(frames)
        with self._timer.stage("inference"):
            outputs = self._model.infer({self._input: images})
        with self._timer.stage("postprocess"):
            decoded = self._head.decode(outputs, images.shape[3], images.shape[2], self.score_threshold)
            height, width = frames.shape[1:3]
            return [
                self._select(placement.to_frame(boxes), scores, class_ids, width, height)
                for boxes, scores, class_ids in decoded
            ]

    def _select(
        self, boxes: np.ndarray, scores: np.ndarray, class_ids: np.ndarray, width: int, height: int
    ) -> Detections:
        # Clipping changes overlaps, so it comes before suppression: what is stored obeys the IoU limit.
        inside = clip_boxes(boxes.astype(np.float32), width, height)
        visible = ((inside[:, 2:] - inside[:, :2]) >= MIN_BOX_SIDE_PX).all(axis=1)
        inside, scores, class_ids = inside[visible], scores[visible], class_ids[visible]
        kept = non_maximum_suppression(inside, scores, self.nms_iou, class_ids)
        return Detections(inside[kept], scores[kept].astype(np.float32), class_ids[kept].astype(np.int32))
