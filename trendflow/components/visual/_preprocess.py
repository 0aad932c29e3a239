"""RGB frames → the input tensor of an image model, exactly as its catalogue entry describes it.

Method: the words under `preprocessing` of a catalogue entry, for a frame of W×H. `stretch`: to `width`×`height`.
`letterbox`: scaled by r = min(`width`/W, `height`/H) to round(rW)×round(rH), in the middle (margins left and above
rounded down) of a canvas of `pad_value`; with `longer_side`, r is that / max(W, H), and the canvas has the sides of the
scaled frame, at least `min_side`, rounded up to multiples of `multiple_of`. `shorter_side_center_crop`: scaled by
r = `resize_shorter` / min(W, H), sides rounded down, then the central `width`×`height`, margins rounded.

Method: `bilinear` is OpenCV's INTER_LINEAR and `bicubic` Pillow's BICUBIC, both on 8 bits. Each channel x (0…255, in
the order `color_order`) becomes (x − `mean`) / `std`, unless the model takes uint8 pixels as they are. Positions on the
canvas become pixels of the frame by (x − margin) · W / scaled width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trendflow.components._entry import choice, fact, number
from trendflow.contracts.errors import TrendFlowError

if TYPE_CHECKING:
    from trendflow.models.catalogue import CatalogueEntry

GEOMETRIES = ("stretch", "letterbox", "shorter_side_center_crop")
INTERPOLATIONS = ("bilinear", "bicubic")


@dataclass(frozen=True)
class Placement:
    """Where a frame lies on the model's canvas: `canvas = frame * scale + offset`, in pixels, per axis (x, y)."""

    scale: tuple[float, float]
    offset: tuple[float, float]

    def to_frame(self, points: np.ndarray) -> np.ndarray:
        """Canvas coordinates → frame pixels; the last axis alternates x, y."""
        repeat = points.shape[-1] // 2
        return (points - np.tile(self.offset, repeat)) / np.tile(self.scale, repeat)


@dataclass(frozen=True)
class ColorNormalisation:
    """Channel order and affine scaling; the output is `(x − mean) / std` with x in 0…255."""

    bgr: bool
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, entry: CatalogueEntry) -> ColorNormalisation:
        order = choice(entry, "preprocessing", "color_order", ("RGB", "BGR"))
        mean = np.asarray(fact(entry, "preprocessing", "mean"), dtype=np.float32)
        std = np.asarray(fact(entry, "preprocessing", "std"), dtype=np.float32)
        if mean.shape != (3,) or std.shape != (3,) or not (std > 0).all():
            raise TrendFlowError(
                "model_spec_invalid", f"The entry {entry.name} states a senseless colour normalisation."
            )
        return cls(order == "BGR", mean, std)

    def channels_last(self, images: np.ndarray) -> np.ndarray:
        """uint8 RGB `[n, h, w, 3]` → float32 `[n, h, w, 3]`."""
        ordered = images[..., ::-1] if self.bgr else images
        return (ordered.astype(np.float32) - self.mean) / self.std

    def channels_first(self, images: np.ndarray) -> np.ndarray:
        """uint8 RGB `[n, h, w, 3]` → float32 `[n, 3, h, w]`, contiguous."""
        out = np.empty((len(images), 3, *images.shape[1:3]), dtype=np.float32)
        for channel in range(3):  # plane by plane: one strided read instead of a transposed copy of floats
            plane = out[:, channel]
            np.subtract(images[..., 2 - channel if self.bgr else channel], self.mean[channel], out=plane)
            plane /= self.std[channel]
        return out


@dataclass(frozen=True)
class FramePreprocessing:
    """Geometry and colour of one entry. `color` is None where the model takes the pixels as they are."""

    geometry: str
    interpolation: str
    facts: Mapping[str, int]
    color: ColorNormalisation | None
    entry_name: str

    @classmethod
    def of(cls, entry: CatalogueEntry) -> FramePreprocessing:
        """Raises `model_spec_invalid` when the entry leaves a fact out or names an unknown method."""
        geometry = choice(entry, "preprocessing", "geometry", GEOMETRIES)
        interpolation = choice(entry, "preprocessing", "interpolation", INTERPOLATIONS)
        names = {
            "stretch": ("width", "height"),
            "letterbox": ("longer_side", "multiple_of")
            if "longer_side" in entry.preprocessing
            else ("width", "height"),
            "shorter_side_center_crop": ("resize_shorter", "width", "height"),
        }[geometry]
        facts = {name: int(number(entry, "preprocessing", name, 1)) for name in names}
        if geometry == "letterbox":
            facts["pad_value"] = int(number(entry, "preprocessing", "pad_value", 0, 255))
            if "min_side" in entry.preprocessing:
                facts["min_side"] = int(number(entry, "preprocessing", "min_side", 1))
        color = None if _takes_pixels(entry) else ColorNormalisation.of(entry)
        return cls(geometry, interpolation, facts, color, entry.name)

    def __call__(self, frames: np.ndarray) -> tuple[np.ndarray, Placement]:
        """uint8 RGB `[n, H, W, 3]` → (input tensor, placement shared by all frames).

        The tensor is float32 `[n, 3, h, w]`, or uint8 `[n, h, w, 3]` where the model takes pixels.
        """
        height, width = frames.shape[1:3]
        if self.geometry == "letterbox":
            images, placement = self._letterbox(frames, width, height)
        elif self.geometry == "stretch":
            size = (self.facts["width"], self.facts["height"])
            images = np.stack([resize(frame, size, self.interpolation) for frame in frames])
            placement = Placement((size[0] / width, size[1] / height), (0.0, 0.0))
        else:
            images, placement = self._center_crop(frames, width, height)
        return images if self.color is None else self.color.channels_first(images), placement

    def _letterbox(self, frames: np.ndarray, width: int, height: int) -> tuple[np.ndarray, Placement]:
        if "longer_side" in self.facts:
            ratio = self.facts["longer_side"] / max(width, height)
            step, least = self.facts["multiple_of"], self.facts.get("min_side", 1)
            wanted = (max(round(side * ratio), least) for side in (width, height))
            columns, rows = (math.ceil(side / step) * step for side in wanted)
            box = (columns, rows)
        else:
            box = (self.facts["width"], self.facts["height"])
            ratio = min(box[0] / width, box[1] / height)
        inner = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        left, top = (box[0] - inner[0]) // 2, (box[1] - inner[1]) // 2
        canvas = np.full((len(frames), box[1], box[0], 3), self.facts["pad_value"], dtype=np.uint8)
        for image, frame in zip(canvas, frames, strict=True):
            image[top : top + inner[1], left : left + inner[0]] = resize(frame, inner, self.interpolation)
        return canvas, Placement((inner[0] / width, inner[1] / height), (float(left), float(top)))

    def _center_crop(self, frames: np.ndarray, width: int, height: int) -> tuple[np.ndarray, Placement]:
        size, shorter = (self.facts["width"], self.facts["height"]), self.facts["resize_shorter"]
        # Whole numbers: a ratio in floating point may end just below a size and lose a pixel.
        full = (shorter * width // min(width, height), shorter * height // min(width, height))
        left, top = round((full[0] - size[0]) / 2), round((full[1] - size[1]) / 2)
        if left < 0 or top < 0:
            raise TrendFlowError(
                "model_spec_invalid", f"The crop of the entry {self.entry_name} is larger than its resized image."
            )
        images = np.stack(
            [resize(frame, full, self.interpolation)[top : top + size[1], left : left + size[0]] for frame in frames]
        )
        return images, Placement((full[0] / width, full[1] / height), (-float(left), -float(top)))


def _takes_pixels(entry: CatalogueEntry) -> bool:
    """Whether the model's input is uint8 RGB, channels last, with the normalisation inside the model."""
    if entry.inputs[0].dtype != "uint8":
        return False
    if entry.inputs[0].layout != "NHWC" or entry.preprocessing.get("color_order") != "RGB":
        raise TrendFlowError("model_spec_invalid", f"The entry {entry.name} takes pixels in an unknown order.")
    return True


def resize(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """uint8 RGB image to `(width, height)`."""
    if interpolation == "bicubic":
        # Pillow widens the kernel when it shrinks; OpenCV's cubic does not and aliases.
        from PIL import Image

        resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
        return np.asarray(resized)
    import cv2

    return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
