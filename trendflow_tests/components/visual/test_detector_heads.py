"""Decoding of detector outputs that were written by hand for boxes that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trendflow.components.visual._face_detector import decode_centerface
from trendflow.components.visual._nanodet import NanoDetHead
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue, CatalogueEntry

BINS, CLASSES, SIZE = 11, 80, 416
CERTAIN = 60.0
"""A logit so high that its bin has all the probability."""


@pytest.fixture(scope="module")
def nanodet() -> CatalogueEntry:
    return Catalogue.load()["nanodet_m_416"]


def silent_outputs(entry: CatalogueEntry) -> dict[str, np.ndarray]:
    return {spec.name: np.zeros([int(size) for size in spec.shape], dtype=np.float32) for spec in entry.outputs}


def head_of(entry: CatalogueEntry, stride: int) -> dict[str, Any]:
    return next(head for head in entry.postprocessing["heads"] if head["stride"] == stride)


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_a_certain_distribution_is_a_distance(nanodet: CatalogueEntry, stride: int) -> None:
    outputs, head, columns = silent_outputs(nanodet), head_of(nanodet, stride), SIZE // stride
    row, column = 4, 7
    cell = row * columns + column
    outputs[head["scores"]][0, cell, 17] = 0.9
    distances = (1, 2, 3, 4)  # left, top, right, bottom in strides
    for side, distance in enumerate(distances):
        outputs[head["boxes"]][0, cell, side * BINS + distance] = CERTAIN
    ((boxes, scores, class_ids),) = NanoDetHead.of(nanodet).decode(outputs, SIZE, SIZE, 0.5)
    x, y = (column + 0.5) * stride, (row + 0.5) * stride
    expected = [[x - stride, y - 2 * stride, x + 3 * stride, y + 4 * stride]]
    np.testing.assert_allclose(boxes, expected, atol=1e-6)
    assert (scores.tolist(), class_ids.tolist()) == ([pytest.approx(0.9)], [17])


def test_an_uncertain_distribution_is_its_mean(nanodet: CatalogueEntry) -> None:
    outputs, head = silent_outputs(nanodet), head_of(nanodet, 16)
    outputs[head["scores"]][0, 0, 0] = 0.7
    sides = outputs[head["boxes"]][0, 0].reshape(4, BINS)
    sides[0, [2, 3]] = CERTAIN  # half 2, half 3
    sides[1, [0, 4]] = CERTAIN, CERTAIN + np.log(3)  # a quarter 0, three quarters 4
    sides[2, 10] = CERTAIN
    # the fourth side is uniform over 0…10
    ((boxes, _, _),) = NanoDetHead.of(nanodet).decode(outputs, SIZE, SIZE, 0.5)
    np.testing.assert_allclose(boxes, [[8 - 2.5 * 16, 8 - 3 * 16, 8 + 10 * 16, 8 + 5 * 16]], atol=1e-4)


def test_only_scores_above_the_threshold_count(nanodet: CatalogueEntry) -> None:
    outputs, head = silent_outputs(nanodet), head_of(nanodet, 8)
    outputs[head["scores"]][0, :3, 2] = 0.49, 0.5, 0.51
    outputs[head["scores"]][0, 2, 5] = 0.6
    ((_, scores, class_ids),) = NanoDetHead.of(nanodet).decode(outputs, SIZE, SIZE, 0.5)
    found = sorted(zip(scores.astype(float).round(2).tolist(), class_ids.tolist(), strict=True))
    assert found == [(0.5, 2), (0.51, 2), (0.6, 5)]


def test_another_class_list_is_refused(nanodet: CatalogueEntry) -> None:
    shorter = nanodet.model_copy(update={"class_names": nanodet.class_names[:-1]})
    with pytest.raises(TrendFlowError) as caught:
        NanoDetHead.of(shorter)
    assert caught.value.error_code == "model_spec_invalid"
    assert caught.value.detail["classes"] == CLASSES - 1


def test_another_input_size_is_refused(nanodet: CatalogueEntry) -> None:
    with pytest.raises(TrendFlowError) as caught:
        NanoDetHead.of(nanodet).decode(silent_outputs(nanodet), SIZE, SIZE // 2, 0.5)
    assert caught.value.error_code == "model_spec_invalid"


def test_centerface_maps() -> None:
    stride, row, column = 4, 10, 20
    maps = {
        name: np.zeros((2, channels, 40, 40), np.float32)
        for name, channels in {"heatmap": 1, "scale": 2, "offset": 2, "landmarks": 10}.items()
    }
    image, height, width = 1, 36.0, 24.0
    at = (image, slice(None), row, column)
    maps["heatmap"][at] = 0.8
    maps["scale"][at] = np.log(height / stride), np.log(width / stride)
    maps["offset"][at] = 0.25, -0.25  # y, x in cells
    points = np.array([[0.2, 0.4], [0.8, 0.4], [0.5, 0.6], [0.3, 0.8], [0.7, 0.8]])  # x, y in boxes
    maps["landmarks"][at] = points[:, ::-1].ravel()

    boxes, scores, found = decode_centerface(maps, image, stride, 0.5)

    x, y = (column + 0.5 - 0.25) * stride, (row + 0.5 + 0.25) * stride
    np.testing.assert_allclose(boxes, [[x - width / 2, y - height / 2, x + width / 2, y + height / 2]], atol=1e-4)
    np.testing.assert_allclose(found[0], [x - width / 2, y - height / 2] + points * [width, height], atol=1e-4)
    assert scores == pytest.approx([0.8])
    assert len(decode_centerface(maps, 0, stride, 0.5)[0]) == 0
