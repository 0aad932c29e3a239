"""Face boxes → 468-point meshes in analysis pixels.

The mesh model sees a square crop around the face box, enlarged by the entry's `crop_scale` and turned upright when the
eye line is tilted by at least `align_min_roll_deg`. Positions are continuous: pixel i covers [i, i + 1).

Method: the mesh model sees a square around the centre of the face box before it was cut to the frame, `crop_scale`
times its longer side, `pad_value` outside of the frame. If the line from the left to the right eye of the detector (as
seen) is tilted by at least `align_min_roll_deg`, the square is turned with it. A face with a presence below
`presence_threshold` has no mesh. Pixel k covers [k, k + 1) in frame and square. z, in pixels of the square, is brought
to those of the frame and divided by the width of the box.

Method: `mouth_open` and `eye_open` use the distances of points in pixels, from x · width and y · height of the frame,
without z, over the faces with a mesh.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from trendflow.components._entry import choice, number
from trendflow.components.visual._face_detector import Faces
from trendflow.components.visual._frame_batches import StageTimer
from trendflow.components.visual._preprocess import ColorNormalisation
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.interface import ModelHandle

POINTS = 468
UPPER_LIP, LOWER_LIP = 13, 14
MOUTH_CORNERS = (78, 308)
EYE_CORNERS = (33, 133)
EYE_LIDS = ((160, 144), (158, 153))


@dataclass(frozen=True)
class Crop:
    """A square cut-out: `crop = matrix @ frame + shift` maps frame pixels to the model's input pixels."""

    matrix: np.ndarray  # float64 [2, 2], rotation times scale
    shift: np.ndarray  # float64 [2]
    scale: float

    @classmethod
    def around(cls, box: np.ndarray, roll: float, crop_scale: float, size: int) -> Crop:
        """The crop of `size` × `size` pixels around a box, turned by −roll so that the eyes become level."""
        scale = size / (crop_scale * float((box[2:] - box[:2]).max()))
        cosine, sine = np.cos(roll) * scale, np.sin(roll) * scale
        matrix = np.array([[cosine, sine], [-sine, cosine]])
        return cls(matrix, size / 2 - matrix @ ((box[:2] + box[2:]) / 2), scale)

    def cut(self, frame: np.ndarray, size: int, pad_value: int) -> np.ndarray:
        """uint8 `[size, size, 3]`, filled with `pad_value` beyond the frame."""
        import cv2

        # OpenCV counts from pixel centres, this module from pixel edges: half a pixel on both sides.
        centred = self.shift + self.matrix @ np.array([0.5, 0.5]) - 0.5
        affine = np.concatenate([self.matrix, centred[:, None]], axis=1)
        return cv2.warpAffine(
            frame,
            affine,
            (size, size),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(pad_value,) * 3,
        )

    def to_frame(self, points: np.ndarray) -> np.ndarray:
        """Crop pixels `[n, 2]` → frame pixels."""
        return (points - self.shift) @ np.linalg.inv(self.matrix).T


class FaceMesher:
    """One landmark model with the crop rule and thresholds of its entry."""

    def __init__(self, model: ModelHandle, timer: StageTimer) -> None:
        entry = model.entry
        choice(entry, "preprocessing", "geometry", ("square_crop",))
        by_width = {spec.shape[-1]: spec.name for spec in entry.outputs}
        if int(number(entry, "postprocessing", "points", 1)) != POINTS or not {POINTS * 3, 1} <= set(by_width):
            raise TrendFlowError("model_spec_invalid", f"The entry {entry.name} does not give {POINTS} points.")
        self._mesh, self._presence = by_width[POINTS * 3], by_width[1]
        self._size = int(number(entry, "preprocessing", "width", 1))
        self._pad_value = int(number(entry, "preprocessing", "pad_value", 0, 255))
        self._crop_scale = number(entry, "preprocessing", "crop_scale", 1)
        self._min_roll = np.radians(number(entry, "preprocessing", "align_min_roll_deg", 0, 180))
        self._presence_threshold = number(entry, "postprocessing", "presence_threshold", 0, 1)
        self._color = ColorNormalisation.of(entry)
        self._model, self._timer = model, timer

    def __call__(self, frames: np.ndarray, faces: list[Faces]) -> list[np.ndarray]:
        """Meshes per frame, float64 `[n, 468, 3]`: x, y in frame pixels, z in face widths (smaller is nearer).

        A face whose crop the model does not recognise as one (profiles, mostly) has NaN points.
        """
        boxes = [(i, row) for i, found in enumerate(faces) for row in range(len(found))]
        step = self._model.entry.max_batch_size
        meshes = [np.full((len(found), POINTS, 3), np.nan) for found in faces]
        for start in range(0, len(boxes), step):
            chunk = boxes[start : start + step]
            with self._timer.stage("mesh_preprocess"):
                crops = [self._crop(faces[i], row) for i, row in chunk]
                images = np.stack(
                    [
                        crop.cut(frames[i], self._size, self._pad_value)
                        for crop, (i, _) in zip(crops, chunk, strict=True)
                    ]
                )
                images = self._color.channels_last(images)
            with self._timer.stage("mesh_inference"):
                outputs = self._model.infer({self._model.entry.inputs[0].name: images})
            points = outputs[self._mesh].reshape(-1, POINTS, 3).astype(np.float64)
            present = outputs[self._presence][:, 0] >= self._presence_threshold
            for (i, row), crop, mesh in itertools.compress(zip(chunk, crops, points, strict=True), present):
                box = faces[i].full_boxes[row]
                meshes[i][row, :, :2] = crop.to_frame(mesh[:, :2])
                meshes[i][row, :, 2] = mesh[:, 2] / crop.scale / (box[2] - box[0])
        return meshes

    def _crop(self, faces: Faces, row: int) -> Crop:
        roll = float(faces.roll()[row])
        turn = roll if abs(roll) >= self._min_roll else 0.0
        # The whole box, not the part inside the frame: the mesh expects the face in the middle of its crop.
        return Crop.around(faces.full_boxes[row], turn, self._crop_scale, self._size)


def mouth_opening(points_px: np.ndarray) -> np.ndarray:
    """Gap between the lips ÷ width of the mouth, per mesh `[n, 468, ≥ 2]` in pixels."""
    return _ratio(_distance(points_px, UPPER_LIP, LOWER_LIP), _distance(points_px, *MOUTH_CORNERS))


def eye_opening(points_px: np.ndarray) -> np.ndarray:
    """Eye aspect ratio of the eye between points 33 and 133, per mesh `[n, 468, ≥ 2]` in pixels.

    Soukupová & Čech, "Real-Time Eye Blink Detection using Facial Landmarks" (CVWW 2016), equation 1.
    """
    (upper1, lower1), (upper2, lower2) = EYE_LIDS
    lids = _distance(points_px, upper1, lower1) + _distance(points_px, upper2, lower2)
    return _ratio(lids, 2 * _distance(points_px, *EYE_CORNERS))


def _distance(points_px: np.ndarray, a: int, b: int) -> np.ndarray:
    return np.linalg.norm(points_px[:, a, :2] - points_px[:, b, :2], axis=1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)
