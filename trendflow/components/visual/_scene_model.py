"""The place classifier: frames → probabilities of 365 place classes and of the groups above them.

Method: `bilinear_antialiased` is Pillow's BILINEAR on 8 bits. Probabilities are the softmax of the output. Indoor is
the sum of the groups indoor_…, outdoor natural of natural_…, outdoor man-made of manmade_….
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trendflow.components._entry import choice, number
from trendflow.components.visual._frame_batches import StageTimer
from trendflow.components.visual._preprocess import ColorNormalisation
from trendflow.components.visual._prompt_classes import softmax
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.interface import ModelHandle

if TYPE_CHECKING:
    from trendflow.models.catalogue import CatalogueEntry

CLASSES = 365
# The two upper levels of the Places365 hierarchy: where a scene is, and what kind of place it is.
HIERARCHY = {
    "indoor": (
        "indoor_shopping_dining",
        "indoor_workplace",
        "indoor_home_hotel",
        "indoor_transportation",
        "indoor_sports_leisure",
        "indoor_cultural",
    ),
    "natural": (
        "natural_water_ice_snow",
        "natural_mountains_desert_sky",
        "natural_forest_field_jungle",
        "natural_manmade_elements",
    ),
    "manmade": (
        "manmade_transportation",
        "manmade_cultural_historical",
        "manmade_sports_parks",
        "manmade_industrial_construction",
        "manmade_houses_gardens_farms",
        "manmade_commercial_town",
    ),
}
IO_CLASSES = tuple(HIERARCHY)
GROUPS = tuple(group for members in HIERARCHY.values() for group in members)


class SceneModel:
    """uint8 RGB frames `[n, H, W, 3]` → float32 probabilities `[n, 365]`."""

    def __init__(self, model: ModelHandle, timer: StageTimer) -> None:
        entry = model.entry
        if len(entry.inputs) != 1 or len(entry.outputs) != 1 or len(entry.class_names) != CLASSES:
            raise TrendFlowError("model_spec_invalid", f"The entry {entry.name} describes no model of 365 places.")
        if set(entry.class_groups) != set(GROUPS):
            raise TrendFlowError(
                "model_spec_invalid", f"The entry {entry.name} does not put its classes into the 16 groups of places."
            )
        choice(entry, "postprocessing", "score_activation", ("softmax",))
        self.class_names = entry.class_names
        self._model, self._timer = model, timer
        self._prepare = _CentralCrop(entry)
        self._input, self._output = entry.inputs[0].name, entry.outputs[0].name
        position = {name: i for i, name in enumerate(entry.class_names)}
        self._in_group = np.zeros((CLASSES, len(GROUPS)))
        for column, group in enumerate(GROUPS):
            self._in_group[[position[name] for name in entry.class_groups[group]], column] = 1.0

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        with self._timer.stage("preprocess"):
            images = self._prepare(frames)
        with self._timer.stage("inference"):
            logits = self._model.infer({self._input: images})[self._output]
        if logits.shape != (len(frames), CLASSES):
            raise TrendFlowError(
                "model_spec_invalid",
                f"The output of {self._model.entry.name} is not {CLASSES} wide.",
                shape=list(logits.shape),
            )
        return softmax(logits.astype(np.float32))  # whatever the engine's precision

    def group_probabilities(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums over the classes of each of `IO_CLASSES` `[n, 3]` and of each of `GROUPS` `[n, 16]`, float64."""
        groups = probabilities.astype(np.float64) @ self._in_group
        first = np.cumsum([0, *(len(members) for members in HIERARCHY.values())])[:-1]
        return np.add.reduceat(groups, first, axis=1), groups


class _CentralCrop:
    """Shorter side to `resize_shorter`, then the central `width` × `height`; float32 `[n, 3, h, w]`.

    Both interpolations are Pillow's, which widens the kernel when it shrinks; rounding of sizes and offsets is
    torchvision's.
    """

    def __init__(self, entry: CatalogueEntry) -> None:
        choice(entry, "preprocessing", "geometry", ("shorter_side_center_crop",))
        self._filter = choice(entry, "preprocessing", "interpolation", ("bilinear_antialiased", "bicubic"))
        names = ("resize_shorter", "width", "height")
        self._shorter, self._width, self._height = (int(number(entry, "preprocessing", name, 1)) for name in names)
        if max(self._width, self._height) > self._shorter:
            raise TrendFlowError("model_spec_invalid", f"The crop of {entry.name} is larger than its resized image.")
        self._color = ColorNormalisation.of(entry)

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        from PIL import Image

        kernel = Image.Resampling.BICUBIC if self._filter == "bicubic" else Image.Resampling.BILINEAR
        height, width = frames.shape[1:3]
        shorter = min(width, height)
        full = (self._shorter * width // shorter, self._shorter * height // shorter)
        left, top = round((full[0] - self._width) / 2), round((full[1] - self._height) / 2)
        box = (slice(top, top + self._height), slice(left, left + self._width))
        return self._color.channels_first(
            np.stack([np.asarray(Image.fromarray(frame).resize(full, kernel))[box] for frame in frames])
        )
