"""Thinning and ticks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trendflow.presentation.series import covering, finite_runs, nice_range, sample_edges, spread, thin, time_ticks

VALUES = arrays(np.float64, st.integers(1, 3000), elements=st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))))


@given(VALUES, st.integers(10, 400))
def test_thinning_keeps_extremes_ends_and_order(y: np.ndarray, limit: int) -> None:
    x = np.arange(len(y), dtype=np.float64)
    tx, ty = thin(x, y, limit)
    assert len(ty) <= max(limit, 1)
    assert (np.diff(tx) > 0).all()
    assert tx[0] == x[0]
    assert tx[-1] == x[-1]
    np.testing.assert_array_equal(ty, y[tx.astype(int)])
    finite = y[np.isfinite(y)]
    if finite.size:
        assert np.nanmin(ty) == finite.min()
        assert np.nanmax(ty) == finite.max()


def test_thinning_keeps_a_single_spike_and_a_long_gap() -> None:
    y = np.zeros(36_000)
    y[17_003] = 1.0
    y[20_000:21_000] = np.nan
    _, thinned = thin(np.arange(36_000.0), y, 1000)
    assert thinned.max(where=np.isfinite(thinned), initial=0) == 1.0
    assert len(list(finite_runs(thinned))) == 2


@given(VALUES)
def test_runs_cover_exactly_the_finite_values(y: np.ndarray) -> None:
    covered = np.zeros(len(y), bool)
    for run in finite_runs(y):
        covered[run] = True
    np.testing.assert_array_equal(covered, np.isfinite(y))


@given(st.floats(-1e4, 1e4), st.floats(0, 1e4))
def test_nice_range_contains_the_data_and_is_even(low: float, span: float) -> None:
    bottom, top, ticks = nice_range(low, low + span)
    assert bottom <= low + 1e-6
    assert top >= low + span - 1e-6
    assert top > bottom
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0])


@given(st.floats(5, 1200))
def test_time_ticks_are_few_and_inside(duration: float) -> None:
    ticks = time_ticks(duration)
    assert ticks[0] == 0
    assert ticks[-1] <= duration + 1e-9
    assert 2 <= len(ticks) <= 11


def test_sample_edges_are_midpoints() -> None:
    np.testing.assert_allclose(sample_edges(np.array([0.0, 1.0, 3.0]), 4.0), [0.0, 0.5, 2.0, 4.0])


@given(st.integers(0, 500), st.integers(1, 50))
def test_spread_is_unique_and_inside(count: int, wanted: int) -> None:
    chosen = spread(count, wanted)
    assert len(chosen) == min(count, wanted)
    assert len(set(chosen.tolist())) == len(chosen)
    assert all(0 <= k < count for k in chosen)


@given(VALUES, st.floats(-10, 0), st.floats(0, 10))
def test_covering_holds_the_span_and_every_value(y: np.ndarray, low: float, high: float) -> None:
    found = covering(y, (low, high))
    finite = y[np.isfinite(y)]
    if not finite.size:
        assert found is None
        return
    assert found == (min(low, finite.min()), max(high, finite.max()))
