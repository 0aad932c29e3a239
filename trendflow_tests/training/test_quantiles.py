"""Monotone and conformal intervals on data whose distribution is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.quantiles import conformal_offset, conformalise, monotone

VALUES = st.floats(-50, 50, allow_nan=False)


@given(arrays(np.float64, (7, 3), elements=VALUES), st.floats(-10, 10))
def test_quantiles_are_ordered_and_never_negative(raw: np.ndarray, offset: float) -> None:
    made = conformalise(monotone(raw), offset)
    assert (np.diff(made, axis=1) >= 0).all()
    assert (made >= 0).all()


def test_the_offset_is_the_order_statistic_of_the_paper() -> None:
    """Nine rows, 0.8: rank ceil(10 · 0.8) = 8 of the scores."""
    y = np.arange(1.0, 10.0)
    quantiles = np.tile([0.0, 0.0, 0.0], (9, 1))  # score = y
    assert conformal_offset(quantiles, y, 0.8) == 8.0


def test_an_interval_that_is_too_wide_shrinks_but_keeps_its_median() -> None:
    rng = np.random.default_rng(0)
    y = 10 + rng.normal(size=500)
    quantiles = np.tile([2.0, 10.0, 18.0], (500, 1))
    offset = conformal_offset(quantiles, y)
    assert offset < -6
    made = conformalise(quantiles, offset)
    assert (made[:, 1] == 10).all()
    assert made[0, 2] - made[0, 0] < 4


def test_coverage_is_that_of_the_theorem() -> None:
    """E[coverage] = ceil((n + 1) · 0.8) / (n + 1) for continuous scores: n = 49 gives exactly 40 / 50.

    The forecasts are far too narrow and ignore that the spread differs between rows.
    """
    rng = np.random.default_rng(4)
    coverage = []
    for _ in range(400):
        scale = rng.uniform(0.5, 2.0, 49 + 200)
        y = 20 + scale * rng.standard_t(4, 49 + 200)
        quantiles = np.column_stack([20 - 0.1 * scale, np.full_like(y, 20.0), 20 + 0.1 * scale])
        made = conformalise(quantiles[49:], conformal_offset(quantiles[:49], y[:49]))
        coverage.append(np.mean((made[:, 0] <= y[49:]) & (y[49:] <= made[:, 2])))
    # 400 calibrations: the standard error of the mean is below 0.004.
    assert np.mean(coverage) == pytest.approx(0.80, abs=0.015)


def test_three_rows_cannot_carry_an_interval() -> None:
    with pytest.raises(TrendFlowError) as caught:
        conformal_offset(np.zeros((3, 3)), np.zeros(3))
    assert caught.value.error_code == "input_constraint_violated"
    assert conformal_offset(np.zeros((4, 3)), np.zeros(4)) == 0.0
