"""Dense flow between frames with the model of the role `optical_flow`, in both directions.

Everything about the model is read from its catalogue entry: two pictures in, one displacement field out, in pixels of
the model's canvas, x before y. Padding is removed here; the field stays on the model's grid.

Method: `core_optical_flow` measures the flow v from each frame to the next one on the canvas of the model; margins are
left out. "Model pixels" are those of the canvas. An analysis pixel is one of the stored frame, so v_x counts
W / scaled width and v_y H / scaled height analysis pixels; divided by max(W, H) they are frame lengths.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trendflow.components._entry import choice, fact
from trendflow.components.visual._frame_batches import StageTimer
from trendflow.components.visual._preprocess import FramePreprocessing, Placement
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.interface import ModelHandle


@dataclass(frozen=True)
class PreparedFrames:
    """Frames as the model takes them, and where a frame lies on the canvas."""

    canvas: np.ndarray  # float32 [n, 3, h, w]
    placement: Placement
    frame_size: tuple[int, int]  # width, height

    def __len__(self) -> int:
        return len(self.canvas)

    def rows(self, start: int, stop: int) -> PreparedFrames:
        return PreparedFrames(self.canvas[start:stop], self.placement, self.frame_size)

    def then(self, others: PreparedFrames) -> PreparedFrames:
        """These frames and then those. All frames of a video have one size."""
        return PreparedFrames(np.concatenate([self.canvas, others.canvas]), self.placement, self.frame_size)


@dataclass(frozen=True)
class PixelScale:
    """Turns model pixels into frame lengths: analysis pixels over the longer side of the frame, per axis."""

    x: float
    y: float

    @classmethod
    def of(cls, frames: PreparedFrames) -> PixelScale:
        longer = max(frames.frame_size)
        scale_x, scale_y = frames.placement.scale
        return cls(1.0 / (scale_x * longer), 1.0 / (scale_y * longer))


class FlowModel:
    """One flow model. `prepare` frames once, then measure pairs of them."""

    def __init__(self, model: ModelHandle, timer: StageTimer) -> None:
        """Raises `model_spec_invalid` when the entry describes no flow model."""
        entry = model.entry
        if len(entry.inputs) != 2 or len(entry.outputs) != 1:
            raise TrendFlowError("model_spec_invalid", f"The entry {entry.name} describes no flow model.")
        choice(entry, "preprocessing", "geometry", ("letterbox", "stretch"))  # a crop would leave pixels without flow
        choice(entry, "postprocessing", "output_units", ("canvas_px",))
        if list(fact(entry, "postprocessing", "channel_order")) != ["x", "y"]:
            raise TrendFlowError("model_spec_invalid", f"The entry {entry.name} states an unknown channel order.")
        self._model, self._timer = model, timer
        self._first, self._second = (spec.name for spec in entry.inputs)
        self._output = entry.outputs[0].name
        self._preprocess = FramePreprocessing.of(entry)

    @property
    def max_pairs(self) -> int:
        return self._model.entry.max_batch_size

    def prepare(self, frames: np.ndarray) -> PreparedFrames:
        """uint8 RGB `[n, H, W, 3]` → canvases."""
        with self._timer.stage("preprocess"):
            canvas, placement = self._preprocess(frames)
        return PreparedFrames(canvas, placement, (frames.shape[2], frames.shape[1]))

    def both_ways(self, frames: PreparedFrames) -> tuple[np.ndarray, np.ndarray]:
        """Flow of successive frames forward and back, float32 `[n-1, h, w, 2]` each, in model pixels.

        Raises `artifact_validation_failed` when a vector is not finite.
        """
        before, after = frames.canvas[:-1], frames.canvas[1:]
        with self._timer.stage("inference"):
            forward, backward = self._flow(before, after), self._flow(after, before)
        return _inside(forward, frames), _inside(backward, frames)

    def _flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        flow = self._model.infer({self._first: first, self._second: second})[self._output]
        name = self._model.entry.name
        if flow.shape != (len(first), 2, *first.shape[2:]):
            raise TrendFlowError(
                "model_spec_invalid", f"{name} gave no flow field of its canvas.", shape=list(flow.shape)
            )
        if not np.isfinite(flow).all():
            raise TrendFlowError("artifact_validation_failed", f"{name} gave flow vectors that are not finite.")
        return flow


def _inside(flow: np.ndarray, frames: PreparedFrames) -> np.ndarray:
    """`[n, 2, H, W]` of the canvas → `[n, h, w, 2]` of the part that shows the frame."""
    (left, top), (scale_x, scale_y) = frames.placement.offset, frames.placement.scale
    width, height = (round(side * scale) for side, scale in zip(frames.frame_size, (scale_x, scale_y), strict=True))
    shown = flow[:, :, round(top) : round(top) + height, round(left) : round(left) + width]
    return np.ascontiguousarray(shown.transpose(0, 2, 3, 1))
