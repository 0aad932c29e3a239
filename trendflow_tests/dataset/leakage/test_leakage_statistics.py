"""Rank correlations against SciPy, and partial ones against the residuals of a regression."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trendflow.dataset.leakage_statistics import Correlation, Outcome, correlations, ranks


def outcome(seed: int, n: int, missing: float = 0.0) -> Outcome:
    rng = np.random.default_rng(seed)
    before = np.floor(np.exp(rng.normal(5, 2, n)))
    after = before + np.floor(np.exp(rng.normal(4, 2, n)))
    target = np.where(rng.random(n) < missing, np.nan, np.log1p(after - before))
    return Outcome("views_7d", target, before, np.where(np.isnan(target), np.nan, after))


def only(values: np.ndarray, known: Outcome, min_rows: int = 3) -> Correlation:
    (found,) = correlations([("x", values)], [known], min_rows)
    return found


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_ranks_are_those_of_scipy(values: list[int]) -> None:
    np.testing.assert_array_equal(ranks(np.array(values, dtype=float)), stats.rankdata(values))


@pytest.mark.parametrize("ties", [0, 2])
def test_both_correlations_where_values_are_missing(ties: int) -> None:
    known = outcome(ties, 300, missing=0.3)
    rng = np.random.default_rng(9)
    x = np.where(rng.random(300) < 0.2, np.nan, 0.3 * known.before + rng.normal(0, 50, 300))
    x = np.round(x / 10**ties) if ties else x
    rows = np.isfinite(x) & np.isfinite(known.target)
    found = only(x, known)
    assert found.n == rows.sum()
    assert found.with_target == pytest.approx(stats.spearmanr(x[rows], known.target[rows]).statistic, abs=1e-12)
    first = np.column_stack([np.ones(rows.sum()), stats.rankdata(known.before[rows])])
    left, right = (
        values - first @ np.linalg.lstsq(first, values, rcond=None)[0]
        for values in (stats.rankdata(x[rows]), stats.rankdata(known.after[rows]))
    )
    assert found.beyond_first == pytest.approx(stats.pearsonr(left, right).statistic, abs=1e-9)


def test_a_counter_of_the_first_snapshot_says_nothing_beyond_itself() -> None:
    known = outcome(1, 200)
    assert math.isnan(only(known.before, known).beyond_first)
    assert math.isnan(only(np.log1p(known.before), known).beyond_first)


def test_a_later_counter_says_everything_beyond_the_first() -> None:
    known = outcome(1, 200)
    assert only(known.after, known).beyond_first == pytest.approx(1.0)
    assert only(1 / known.after, known).beyond_first == pytest.approx(-1.0)


def test_constants_have_no_correlation() -> None:
    found = only(np.ones(50), outcome(2, 50))
    assert math.isnan(found.with_target)
    assert math.isnan(found.beyond_first)


def test_too_few_common_rows_are_not_judged() -> None:
    values = np.full(50, np.nan)
    values[:9] = np.arange(9.0)
    assert list(correlations([("x", values)], [outcome(3, 50)], 10)) == []
    assert only(values, outcome(3, 50), 9).n == 9
