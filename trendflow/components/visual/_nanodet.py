"""Decoding of NanoDet heads: generalised focal loss with box sides as discrete distributions.

Li et al., "Generalized Focal Loss", NeurIPS 2020: each side of a box is a distribution over integer distances
0…bins−1 in units of the stride; its expectation is the distance from the cell centre.

Method: column c and row r of the grid with stride s stand for the point (s(c + ½), s(r + ½)) of the canvas. Every class
whose score there is at least `score_threshold` gives a box; its sides (`distribution_order`) are s · Σ k · p_k away
from the point, p the softmax over the `distribution_bins` numbers k = 0, 1, … of that side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trendflow.components._entry import fact, number
from trendflow.contracts.errors import TrendFlowError

if TYPE_CHECKING:
    from trendflow.models.catalogue import CatalogueEntry


@dataclass(frozen=True)
class _Level:
    """One stride of the head and the names of its two outputs."""

    stride: int
    scores: str
    boxes: str


@dataclass(frozen=True)
class NanoDetHead:
    """The outputs of all strides: scores `[B, cells, classes]`; left, top, right, bottom `[B, cells, 4 · bins]`."""

    levels: tuple[_Level, ...]
    bins: int

    @classmethod
    def of(cls, entry: CatalogueEntry) -> NanoDetHead:
        """Raises `model_spec_invalid` when the class list is not as long as the head is wide."""
        bins = int(number(entry, "postprocessing", "distribution_bins", 2))
        levels = tuple(
            _Level(int(head["stride"]), head["scores"], head["boxes"])
            for head in fact(entry, "postprocessing", "heads")
        )
        widths = {spec.name: spec.shape[-1] for spec in entry.outputs}
        classes = len(entry.class_names)
        if any(widths.get(level.scores) != classes or widths.get(level.boxes) != 4 * bins for level in levels):
            raise TrendFlowError(
                "model_spec_invalid",
                f"The outputs of {entry.name} do not fit its {classes} classes and {bins} bins.",
                classes=classes,
                bins=bins,
            )
        return cls(levels, bins)

    def decode(
        self, outputs: Mapping[str, np.ndarray], width: int, height: int, score_threshold: float
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Candidates above the threshold per image: boxes float64 `[n, 4]` in canvas pixels, scores, class ids.

        `width`, `height` are those of the canvas. A cell may give several classes. Order: stride, cell, class.
        """
        cells = [_cell_centres(width, height, level.stride) for level in self.levels]
        for level, centres in zip(self.levels, cells, strict=True):
            if outputs[level.scores].shape[1] != len(centres):
                raise TrendFlowError(
                    "model_spec_invalid", "The detector's grid does not fit its input size.", stride=level.stride
                )
        images = len(outputs[self.levels[0].scores])
        return [self._decode_image(outputs, image, cells, score_threshold) for image in range(images)]

    def _decode_image(
        self, outputs: Mapping[str, np.ndarray], image: int, cells: list[np.ndarray], score_threshold: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        boxes, scores, class_ids = [], [], []
        for level, centres in zip(self.levels, cells, strict=True):
            level_scores = outputs[level.scores][image]
            cell, class_id = np.nonzero(level_scores >= score_threshold)
            logits = outputs[level.boxes][image][cell].reshape(-1, 4, self.bins).astype(np.float64)
            weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
            sides = (weights @ np.arange(self.bins)) / weights.sum(axis=-1) * level.stride
            boxes.append(np.concatenate([centres[cell] - sides[:, :2], centres[cell] + sides[:, 2:]], axis=1))
            scores.append(level_scores[cell, class_id])
            class_ids.append(class_id)
        return np.concatenate(boxes), np.concatenate(scores), np.concatenate(class_ids).astype(np.int32)


def _cell_centres(width: int, height: int, stride: int) -> np.ndarray:
    """Centres x, y of the grid cells in canvas pixels, row by row: float64 `[cells, 2]`."""
    columns, rows = -(-width // stride), -(-height // stride)
    y, x = np.divmod(np.arange(rows * columns), columns)
    return (np.stack([x, y], axis=1) + 0.5) * stride
