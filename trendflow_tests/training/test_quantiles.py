"""Monotone and conformal intervals on data whose distribution is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.quantiles import NOMINAL, conformal_offset, conformalise, put_in_order, serve

VALUES = st.floats(-50, 50, allow_nan=False)


@given(arrays(np.float64, (7, 3), elements=VALUES), st.floats(-10, 10))
def test_quantiles_are_ordered_and_never_negative(raw: np.ndarray, offset: float) -> None:
    made = conformalise(put_in_order([raw]).quantiles[0], offset)
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


@given(arrays(np.float64, (3, 7, 3), elements=VALUES), arrays(np.float64, 3, elements=st.floats(-10, 10)))
def test_what_is_served_rises_with_level_and_horizon(raw: np.ndarray, offsets: np.ndarray) -> None:
    served = np.stack([found.quantiles for found in serve(list(raw), offsets.tolist())])
    assert (np.diff(served, axis=2) >= 0).all()
    assert (np.diff(served, axis=0) >= 0).all()
    assert (served >= 0).all()
    for row in range(raw.shape[1]):
        alone = [found.quantiles[0] for found in serve(raw[:, row : row + 1], offsets.tolist())]
        assert np.array_equal(alone, served[:, row])


@given(arrays(np.float64, (3, 7, 3), elements=VALUES), arrays(np.float64, 3, elements=st.floats(-10, 10)))
def test_after_the_offsets_a_band_is_only_widened(raw: np.ndarray, offsets: np.ndarray) -> None:
    """Level by level the sorted raw values, moved by the offset: nothing of that band is given up."""
    ordered = np.sort(np.sort(np.maximum(raw, 0), axis=2), axis=0)
    for values, offset, found in zip(ordered, offsets.tolist(), serve(list(raw), offsets.tolist()), strict=True):
        assert (found.quantiles[:, 0] <= np.maximum(values[:, 0] - offset, 0)).all()
        assert (found.quantiles[:, 2] >= values[:, 2] + offset).all()
        assert (found.quantiles[:, 1] == values[:, 1]).all()


def test_every_head_covers_what_it_promises_though_the_horizons_differ_in_quality() -> None:
    """SYNTHETIC exchangeable rows, an early head that is right beside later ones that are far off on a tenth of them.

    One new row per calibration, so the hits are independent and their number is binomial with at least the nominal
    share. Were values of a later horizon to take an early one's place after calibration, it would hold some .71.
    """
    rng = np.random.default_rng(20)
    repeats, rows = 2000, 49
    y = 8 + rng.normal(size=(repeats, rows + 1, 1)) + np.array([0.0, 0.2, 0.4])
    noise = 0.3 * rng.normal(size=y.shape) - 5 * (rng.random(y.shape) < np.array([0.0, 0.1, 0.1]))
    raw = np.moveaxis((y + noise)[..., None] + np.array([-0.1, 0.0, 0.1]), 2, 1)  # [repeats, heads, rows, levels]
    hits = np.zeros(3)
    for truth, forecast in zip(np.swapaxes(y, 1, 2), raw, strict=True):
        known = put_in_order(forecast[:, :rows]).quantiles
        offsets = [conformal_offset(values, at[:rows]) for values, at in zip(known, truth, strict=True)]
        last = np.stack([found.quantiles[0] for found in serve(forecast[:, rows:], offsets)])
        hits += (last[:, 0] <= truth[:, rows]) & (truth[:, rows] <= last[:, 2])
    assert (hits / repeats >= NOMINAL - 3 * np.sqrt(NOMINAL * (1 - NOMINAL) / repeats)).all()


def test_horizons_that_agree_are_not_said_to_contradict_each_other() -> None:
    """Every value rises by itself; offsets of 2 and −1 let the upper ends cross, which is no fault of the forecasts."""
    week, fortnight = np.array([[1.0, 2, 3]]), np.array([[1.5, 3, 4]])
    early, late = serve([week, fortnight], [2.0, -1.0])
    assert not np.concatenate([early.rearranged, late.rearranged, early.crossed, late.crossed]).any()
    assert early.quantiles.tolist() == [[0, 2, 5]]
    assert late.quantiles.tolist() == [[2.5, 3, 5]]


@given(arrays(np.float64, (3, 4, 3), elements=VALUES), arrays(np.float64, (3, 4), elements=st.floats(0, 50)))
def test_a_band_that_holds_a_growing_count_still_holds_it(raw: np.ndarray, y: np.ndarray) -> None:
    """No interval is bought with coverage of whole curves: a growing y inside at all horizons stays inside."""
    y = np.sort(y, axis=0)
    alone = np.stack([conformalise(np.sort(np.maximum(one, 0), axis=1), 0.5) for one in raw])
    served = np.stack([found.quantiles for found in serve(raw, [0.5] * 3)])

    def holds(band: np.ndarray) -> np.ndarray:
        return ((band[:, :, 0] <= y) & (y <= band[:, :, 2])).all(axis=0)

    assert holds(served)[holds(alone)].all()


def test_contradictions_are_put_in_order_and_told() -> None:
    """Four videos: nothing wrong; p10 above p50 at 7 days; p50 falls from 14 to 21 days; below 0, where nothing is."""
    week = np.array([[1.0, 2, 3], [2.5, 2, 3], [1, 2, 3], [-1, -2, 3]])
    fortnight = np.array([[2.0, 3, 4], [2.5, 3, 4], [2, 5, 6], [0, 1, 4]])
    three = np.array([[3.0, 4, 5], [3, 4, 5], [3, 4, 7], [1, 2, 5]])
    made = serve([week, fortnight, three], [0.0, 0.0, 0.0])
    assert [found.crossed.tolist() for found in made] == [[False, True, False, False], [False] * 4, [False] * 4]
    assert [found.rearranged.tolist() for found in made] == [[False] * 4, *[[False, False, True, False]] * 2]
    assert made[0].quantiles[1].tolist() == [2, 2.5, 3]
    assert [found.quantiles[2].tolist() for found in made] == [[1, 2, 3], [2, 4, 6], [3, 5, 7]]
    alone = serve([week[2:3], fortnight[2:3], three[2:3]], [0.0, 0.0, 0.0])
    assert [found.quantiles[0].tolist() for found in alone] == [found.quantiles[2].tolist() for found in made]


def test_three_rows_cannot_carry_an_interval() -> None:
    with pytest.raises(TrendFlowError) as caught:
        conformal_offset(np.zeros((3, 3)), np.zeros(3))
    assert caught.value.error_code == "input_constraint_violated"
    assert conformal_offset(np.zeros((4, 3)), np.zeros(4)) == 0.0
