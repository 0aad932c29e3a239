"""The depth model: frames → maps of relative inverse depth, exactly as the catalogue entry describes it.

Method: `bicubic_unclipped` is OpenCV's INTER_CUBIC on floats, whose overshoot is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trendflow.components._entry import choice, number
from trendflow.components.visual._frame_batches import StageTimer
from trendflow.components.visual._preprocess import ColorNormalisation, resize
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.interface import ModelHandle

if TYPE_CHECKING:
    from trendflow.models.catalogue import CatalogueEntry

INTERPOLATIONS = ("bicubic", "bicubic_unclipped")


class DepthModel:
    """uint8 RGB frames `[n, H, W, 3]` → float32 maps `[n, s, s]`, larger is nearer; scale and shift are unknown."""

    def __init__(self, model: ModelHandle, timer: StageTimer) -> None:
        entry = model.entry
        if len(entry.inputs) != 1 or len(entry.outputs) != 1:
            raise TrendFlowError("model_spec_invalid", f"The entry {entry.name} describes no depth model.")
        # A metric model has larger values far away, which would turn every measure around.
        choice(entry, "postprocessing", "quantity", ("relative_inverse_depth",))
        self._model, self._timer = model, timer
        self._prepare = _SquareImages(entry)
        self._input, self._output = entry.inputs[0].name, entry.outputs[0].name

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        with self._timer.stage("preprocess"):
            images = self._prepare(frames)
        with self._timer.stage("inference"):
            maps = self._model.infer({self._input: images})[self._output]
        if maps.shape != (len(frames), *images.shape[2:]):
            raise TrendFlowError(
                "model_spec_invalid",
                f"The output of {self._model.entry.name} is no map of its input.",
                shape=list(maps.shape),
            )
        return maps.astype(np.float32)


class _SquareImages:
    """Frames stretched to the model's size, float32 `[n, 3, h, w]`.

    `interpolation` is `bicubic` (antialiased, as Pillow) or `bicubic_unclipped` (the four-tap kernel of OpenCV on
    floats, whose overshoot is kept), which is what the published MiDaS scripts do.
    """

    def __init__(self, entry: CatalogueEntry) -> None:
        choice(entry, "preprocessing", "geometry", ("stretch",))
        self._interpolation = choice(entry, "preprocessing", "interpolation", INTERPOLATIONS)
        self._size = tuple(int(number(entry, "preprocessing", side, 1)) for side in ("width", "height"))
        self._color = ColorNormalisation.of(entry)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        return self._color.channels_first(np.stack([self._resized(frame) for frame in frames]))

    def _resized(self, frame: np.ndarray) -> np.ndarray:
        width, height = self._size
        if self._interpolation == "bicubic":
            return resize(frame, (width, height), "bicubic")
        import cv2

        return cv2.resize(frame.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
