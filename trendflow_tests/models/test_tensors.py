"""Shapes and dtypes of real arrays against their specification."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.models.tensors import TensorSpec, mismatch, smallest_inputs

IMAGES = TensorSpec(name="images", dtype="float32", shape=("B", 3, "H", "W"), layout="NCHW", multiples={"H": 32})
HEATMAP = TensorSpec(name="heatmap", dtype="float32", shape=("B", 1, "H/4", "W/4"), layout="NCHW")


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 40))
def test_a_quarter_means_an_exact_quarter(batch: int, rows: int, columns: int) -> None:
    height, width = 32 * rows, columns
    symbols: dict[str, int] = {}
    assert mismatch(IMAGES, np.zeros((batch, 3, height, width), np.float32), symbols) is None
    assert symbols == {"B": batch, "H": height, "W": width}
    problem = mismatch(HEATMAP, np.zeros((batch, 1, height // 4, width // 4), np.float32), symbols)
    assert (problem is None) == (width % 4 == 0)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((1, 3, 32, 32), np.float64), "dtype float64"),
        (np.zeros((3, 32, 32), np.float32), "3 dimensions"),
        (np.zeros((1, 4, 32, 32), np.float32), "axis 1 has size 4 instead of 3"),
        (np.zeros((1, 3, 33, 32), np.float32), "no multiple of 32"),
        (np.zeros((0, 3, 32, 32), np.float32), "axis 0 has size 0"),
    ],
)
def test_what_does_not_fit_is_named(array: np.ndarray, words: str) -> None:
    assert words in str(mismatch(IMAGES, array, {}))


def test_one_symbol_has_one_value() -> None:
    assert "axis 0 has size 3 instead of 2" in str(mismatch(HEATMAP, np.zeros((3, 1, 8, 8), np.float32), {"B": 2}))


def test_warm_up_inputs_fit_their_own_specification() -> None:
    arrays = smallest_inputs([IMAGES])
    assert mismatch(IMAGES, arrays["images"], {}) is None
    assert arrays["images"].shape == (1, 3, 32, 1)
