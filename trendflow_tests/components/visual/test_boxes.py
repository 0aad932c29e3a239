"""Box arithmetic against counting pixels and against OpenCV's suppression."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trendflow.components.visual._boxes import as_norm, clip_boxes, iou_matrix, non_maximum_suppression

SIDE = 24


@st.composite
def pixel_boxes(draw: st.DrawFn, max_size: int = 12) -> np.ndarray:
    """Whole-pixel boxes with an area, `[n, 4]`."""
    n = draw(st.integers(1, max_size))
    low = draw(hnp.arrays(np.int64, (n, 2), elements=st.integers(0, SIDE - 2)))
    size = draw(hnp.arrays(np.int64, (n, 2), elements=st.integers(1, SIDE)))
    return np.concatenate([low, np.minimum(low + size, SIDE)], axis=1).astype(np.float64)


def painted(box: np.ndarray) -> np.ndarray:
    x1, y1, x2, y2 = box.astype(int)
    canvas = np.zeros((SIDE, SIDE), dtype=bool)
    canvas[y1:y2, x1:x2] = True
    return canvas


@given(pixel_boxes(4), pixel_boxes(4))
def test_overlap_is_that_of_painted_pixels(a: np.ndarray, b: np.ndarray) -> None:
    counted = [[(painted(x) & painted(y)).sum() / (painted(x) | painted(y)).sum() for y in b] for x in a]
    np.testing.assert_allclose(iou_matrix(a, b), counted, atol=1e-12)


def test_boxes_without_area_overlap_nothing() -> None:
    point = np.array([[3.0, 3.0, 3.0, 3.0]])
    assert iou_matrix(point, np.concatenate([point, [[0.0, 0.0, 9.0, 9.0]]])).tolist() == [[0.0, 0.0]]


# Just above a ratio of small integers, hence far from every overlap that whole-pixel boxes can have: OpenCV computes
# in single precision, and a pair that meets the limit exactly would be decided by rounding.
LIMITS = (0.20008, 0.45002, 0.70004)


@given(pixel_boxes(), st.integers(0, 2**32 - 1), st.sampled_from(LIMITS))
def test_suppression_keeps_what_opencv_keeps(boxes: np.ndarray, seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(len(boxes)) / len(boxes) + 0.01  # no ties, which OpenCV may order either way
    class_ids = rng.integers(0, 3, len(boxes))
    sized = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    reference = cv2.dnn.NMSBoxesBatched(sized.tolist(), scores.tolist(), class_ids.tolist(), 0.0, threshold)
    kept = non_maximum_suppression(boxes, scores, threshold, class_ids)
    assert set(kept.tolist()) == set(np.asarray(reference).ravel().tolist())
    assert (np.diff(scores[kept]) < 0).all()


@given(pixel_boxes(), st.integers(0, 2**32 - 1))
def test_kept_boxes_do_not_overlap_and_dropped_ones_do(boxes: np.ndarray, seed: int) -> None:
    scores = np.random.default_rng(seed).random(len(boxes))
    kept = non_maximum_suppression(boxes, scores, 0.4)
    overlap = iou_matrix(boxes, boxes)
    assert (overlap[np.ix_(kept, kept)][~np.eye(len(kept), dtype=bool)] <= 0.4).all()
    for dropped in set(range(len(boxes))) - set(kept.tolist()):
        better = [k for k in kept if scores[k] >= scores[dropped]]
        assert overlap[dropped, better].max() > 0.4


def test_nothing_to_suppress() -> None:
    assert non_maximum_suppression(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []


def test_clipping_and_normalising() -> None:
    boxes = np.array([[-5.0, 10.0, 50.0, 400.0]], dtype=np.float32)
    inside = clip_boxes(boxes, 100, 200)
    assert inside.tolist() == [[0.0, 10.0, 50.0, 200.0]]
    assert as_norm(inside, 100, 200)[0] == pytest.approx([0, 0.05, 0.5, 1])
