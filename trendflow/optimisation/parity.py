"""How far the outputs of a variant are from those of its reference, and how far they may be.

One measure per kind of output. All functions are pure; the first argument is the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trendflow.components.visual._boxes import iou_matrix
from trendflow.contracts.errors import TrendFlowError

Kind = Literal["embedding", "classifier", "detector", "flow", "depth"]
Precision = Literal["fp32", "fp16", "int8"]

MATCH_IOU = 0.5


@dataclass(frozen=True)
class Limit:
    """`metric` must be at least, or at most, `bound`."""

    metric: str
    at_least: bool
    bound: float

    def holds(self, value: float) -> bool:
        """False for NaN: what could not be measured is not proven."""
        return value >= self.bound if self.at_least else value <= self.bound

    def tightened(self, share: float) -> Limit:
        """The limit that allows only this share of the loss; what must be large is perfect at 1."""
        bound = 1.0 - share * (1.0 - self.bound) if self.at_least else share * self.bound
        return Limit(self.metric, self.at_least, bound)


def _least(metric: str, bound: float) -> Limit:
    return Limit(metric, True, bound)


def _most(metric: str, bound: float) -> Limit:
    return Limit(metric, False, bound)


LIMITS: Mapping[tuple[Kind, Precision], tuple[Limit, ...]] = {
    ("embedding", "fp32"): (_least("cosine_mean", 0.9999), _least("cosine_min", 0.9999)),
    ("embedding", "fp16"): (_least("cosine_mean", 0.999), _least("cosine_min", 0.995)),
    ("embedding", "int8"): (_least("cosine_mean", 0.99), _least("cosine_min", 0.97)),
    ("classifier", "fp32"): (_least("top1_agreement", 0.999), _most("probability_error_max", 1e-3)),
    ("classifier", "fp16"): (_least("top1_agreement", 0.99), _most("probability_error_max", 0.02)),
    ("classifier", "int8"): (_least("top1_agreement", 0.97), _most("probability_error_max", 0.10)),
    ("detector", "fp32"): (_least("f1", 0.999),),
    ("detector", "fp16"): (_least("f1", 0.99), _most("score_error_mean", 0.01)),
    ("detector", "int8"): (_least("f1", 0.96), _most("score_error_mean", 0.05)),
    ("flow", "fp32"): (_most("endpoint_error_mean_px", 0.01),),
    ("flow", "fp16"): (_most("endpoint_error_mean_px", 0.1),),
    ("flow", "int8"): (_most("endpoint_error_mean_px", 0.5),),
    ("depth", "fp32"): (_least("spearman_mean", 0.9999),),
    ("depth", "fp16"): (_least("spearman_mean", 0.999),),
    ("depth", "int8"): (_least("spearman_mean", 0.99),),
}


@dataclass(frozen=True)
class Boxes:
    """Detections of one frame: boxes `[n, 4]` as x1, y1, x2, y2 in any unit, scores `[n]`, class ids `[n]`."""

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray


def embedding_parity(reference: np.ndarray, variant: np.ndarray) -> dict[str, float]:
    """Mean and minimum over the rows `[N, D]` of the cosine between the two vectors of an input."""
    a, b = reference.astype(np.float64), variant.astype(np.float64)
    cosine = np.einsum("nd,nd->n", a, b) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return {"cosine_mean": float(cosine.mean()), "cosine_min": float(cosine.min())}


def classifier_parity(reference: np.ndarray, variant: np.ndarray) -> dict[str, float]:
    """Share of inputs with the same most likely class, and the largest |Δp|, of probabilities `[N, C]`."""
    same = reference.argmax(axis=1) == variant.argmax(axis=1)
    error = np.abs(reference.astype(np.float64) - variant.astype(np.float64))
    return {"top1_agreement": float(same.mean()), "probability_error_max": float(error.max())}


def flow_parity(reference: np.ndarray, variant: np.ndarray) -> dict[str, float]:
    """Mean endpoint error of flows `[N, 2, H, W]` in pixels: the length of the difference of the two vectors."""
    difference = reference.astype(np.float64) - variant.astype(np.float64)
    return {"endpoint_error_mean_px": float(np.sqrt(np.square(difference).sum(axis=1)).mean())}


def depth_parity(reference: np.ndarray, variant: np.ndarray) -> dict[str, float]:
    """Mean over the maps `[N, H, W]` of Spearman's rank correlation of their pixels, ties at their mean rank."""
    from scipy.stats import rankdata

    correlations = [
        np.corrcoef(rankdata(a, axis=None), rankdata(b, axis=None))[0, 1]
        for a, b in zip(reference, variant, strict=True)
    ]
    return {"spearman_mean": float(np.mean(correlations))}


def detector_parity(reference: Sequence[Boxes], variant: Sequence[Boxes]) -> dict[str, float]:
    """F1 of matched boxes over all frames, and the mean |Δscore| of the matched pairs.

    Matching is COCO's: from the best score down, a box of the variant takes the free reference box of its class with
    the largest IoU, if that is at least `MATCH_IOU`. Raises `input_constraint_violated` when the reference finds
    nothing in any frame: agreement about nothing proves nothing.
    """
    expected = sum(len(frame.boxes) for frame in reference)
    if expected == 0:
        raise TrendFlowError(
            "input_constraint_violated", "The reference detects nothing in the held-out frames; use other videos."
        )
    errors = [error for a, b in zip(reference, variant, strict=True) for error in _matched_score_errors(a, b)]
    found = sum(len(frame.boxes) for frame in variant)
    return {
        "f1": 2 * len(errors) / (expected + found),
        "score_error_mean": float(np.mean(errors)) if errors else float("nan"),
        "reference_boxes": float(expected),
    }


def _matched_score_errors(reference: Boxes, variant: Boxes) -> list[float]:
    overlap = iou_matrix(variant.boxes, reference.boxes)
    overlap[variant.class_ids[:, None] != reference.class_ids[None, :]] = 0.0
    errors = []
    for row in np.argsort(-variant.scores, kind="stable"):
        if overlap.shape[1] == 0 or overlap[row].max() < MATCH_IOU:
            continue
        column = int(overlap[row].argmax())
        errors.append(abs(float(variant.scores[row]) - float(reference.scores[column])))
        overlap[:, column] = 0.0
    return errors


@dataclass(frozen=True)
class Move:
    """How a scalar changes, in standard deviations of the reference over the videos.

    `typical` is the root mean square over the videos, `largest` the change of the video that it changes most in.
    Infinite where a constant scalar changes, or where a value is NaN on one side only.
    """

    typical: float
    largest: float


def scalar_moves(reference: Sequence[Mapping[str, float]], variant: Sequence[Mapping[str, float]]) -> dict[str, Move]:
    """Move of every scalar over the videos; one that neither side measures is left out.

    A limit is for the typical move: its square is the share of the scalar's variance over the videos that the variant
    adds as noise, for any number of videos. The largest one grows with that number, and a count moves by whole numbers.
    """
    moves = {}
    for name in reference[0]:
        a = np.array([row[name] for row in reference], dtype=np.float64)
        b = np.array([row[name] for row in variant], dtype=np.float64)
        known = np.isfinite(a)
        if not (known.any() or np.isfinite(b).any()):
            continue
        if (known != np.isfinite(b)).any():
            moves[name] = Move(float("inf"), float("inf"))
            continue
        change, spread = np.abs(a - b)[known], float(a[known].std())
        if not change.any():
            moves[name] = Move(0.0, 0.0)
        elif spread > 0.0:
            moves[name] = Move(float(np.sqrt(np.square(change).mean())) / spread, float(change.max()) / spread)
        else:
            moves[name] = Move(float("inf"), float("inf"))
    return moves
