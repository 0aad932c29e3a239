"""Column statistics, pairs and drift of SYNTHETIC samples against pandas, scipy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from trendflow.dataset.column_statistics import SKETCH_POINTS, column_statistics, out_of_range, sketch
from trendflow.dataset.drift import Reference, drift, kolmogorov_p, ks_statistic, stability_index
from trendflow.dataset.duplicates import duplicate_pairs

RNG = np.random.default_rng(5)


def test_statistics_are_those_of_pandas() -> None:
    values = np.round(RNG.gamma(2.0, size=997), 1)
    values[RNG.random(997) < 0.2] = np.nan
    series = pd.Series(values)
    found = column_statistics(values)
    assert (found.n_rows, found.n, found.n_unique) == (997, series.count(), series.nunique())
    assert found.nan_rate == pytest.approx(series.isna().mean())
    assert found.mean == pytest.approx(series.mean())
    assert found.std == pytest.approx(series.std(ddof=0))
    assert [found.p01, found.p50, found.p99] == pytest.approx(series.quantile([0.01, 0.5, 0.99]).tolist())
    top = series.value_counts(normalize=True)
    assert found.top_value_share == pytest.approx(top.iloc[0])
    assert top[found.top_value] == top.iloc[0]


def test_infinite_values_are_counted_and_in_no_other_number() -> None:
    found = column_statistics(np.array([1.0, np.inf, 3.0, -np.inf]))
    assert (found.inf_rate, found.nan_rate, found.n, found.mean) == (0.5, 0.0, 2, 2.0)


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_nothing_measured_is_no_number(values: list[float]) -> None:
    found = column_statistics(np.array(values))
    assert found.n == 0
    assert all(math.isnan(number) for number in (found.mean, found.std, found.p50, found.top_value_share, found.spread))


def test_float_rounding_is_not_out_of_range() -> None:
    values = np.array([0.0, 1.0, np.float32(1.0) + np.finfo(np.float32).eps, 1.01, -0.01, np.nan])
    assert out_of_range(values, (0, 1)).tolist() == [False, False, False, True, True, False]
    assert out_of_range(values, (None, None)).sum() == 0


def test_a_sketch_keeps_the_distribution() -> None:
    few, many = np.sort(RNG.normal(size=150)), np.sort(RNG.normal(size=4000))
    np.testing.assert_array_equal(sketch(few), few)
    kept = sketch(many)
    assert len(kept) == SKETCH_POINTS
    # The step of the kept points, half of it to either side, and that of the sample itself.
    assert ks_statistic(many, kept) <= 0.5 / SKETCH_POINTS + 1 / 4000


@pytest.mark.parametrize("kind", ["normal", "ties"])
@pytest.mark.parametrize(("n", "m", "shift"), [(400, 300, 0.0), (300, 300, 0.3), (1000, 800, 1.0)])
def test_ks_is_that_of_scipy(kind: str, n: int, m: int, shift: float) -> None:
    rng = np.random.default_rng(n + m)
    first, second = rng.normal(size=n), rng.normal(shift, size=m)
    if kind == "ties":
        first, second = np.round(first), np.round(second)
    expected = stats.ks_2samp(first, second, method="asymp")
    distance = ks_statistic(np.sort(first), np.sort(second))
    assert distance == pytest.approx(expected.statistic)
    # scipy corrects the limiting law for the number of rows, which the law itself can only overestimate.
    assert kolmogorov_p(distance, n, m) == pytest.approx(expected.pvalue, rel=0.3, abs=1e-12)
    assert kolmogorov_p(distance, n, m) >= expected.pvalue * 0.999


@pytest.mark.parametrize("scaled", [0.05, 0.2, 0.5, 1.0, 2.0, 5.0])
def test_p_is_the_limiting_law(scaled: float) -> None:
    n = m = 2000
    assert kolmogorov_p(scaled / math.sqrt(n * m / (n + m)), n, m) == pytest.approx(stats.kstwobign.sf(scaled))


def test_a_shift_by_one_deviation_has_the_index_of_the_formula() -> None:
    """Between normals one deviation apart, over the deciles of the first, without any sample."""
    edges = stats.norm.ppf(np.arange(1, 10) / 10)
    p = np.full(10, 0.1)
    q = np.diff(np.concatenate([[0], stats.norm.cdf(edges, loc=1), [1]]))
    expected = float(np.sum((q - p) * np.log(q / p)))
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    reference, moved = stats.norm.ppf(quantiles), stats.norm.ppf(quantiles, loc=1)
    assert expected > 0.9
    assert stability_index(moved, reference, 20_000) == pytest.approx(expected, rel=0.02)
    assert stability_index(reference, reference, 20_000) == pytest.approx(0, abs=1e-6)


def test_the_noise_of_the_index_is_what_the_limits_file_says() -> None:
    for rows, probability in ((300, 2e-5), (200, 3e-3)):
        assert stats.chi2.sf(0.25 / (2 / rows), 9) == pytest.approx(probability, rel=0.2)
    assert stats.chi2.sf(0.25 / (2 / 30), 9) > 0.9
    rng = np.random.default_rng(0)
    samples = [stability_index(rng.normal(size=200), np.sort(rng.normal(size=200)), 200) for _ in range(400)]
    assert np.mean(samples) == pytest.approx(9 * 2 / 200, rel=0.15)


def test_drift_of_nothing_is_none() -> None:
    assert drift(np.array([]), Reference(5, 0.0, np.arange(5.0))) is None
    assert drift(np.arange(5.0), Reference(0, 1.0, np.array([]))) is None


def pairs_of_pandas(values: np.ndarray, threshold: float, least: int) -> set[tuple[int, int]]:
    frame = pd.DataFrame(values)
    found = np.zeros((frame.shape[1],) * 2)
    for method in ("pearson", "spearman"):
        found = np.fmax(found, frame.corr(method=method, min_periods=least).abs().to_numpy())
    return {(int(a), int(b)) for a, b in np.argwhere(np.triu(found >= threshold, k=1))}


def test_pairs_are_those_of_pandas_where_rows_are_missing() -> None:
    rng = np.random.default_rng(8)
    base = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 14))
    copies = [3 - 2 * base[:, 0], np.exp(base[:, 1]), base[:, 2] + 0.05 * base[:, 2].std() * rng.normal(size=300)]
    values = np.column_stack([base, *copies, np.full(300, 7.0)])
    values[rng.random(values.shape) < 0.25] = np.nan
    values[:, 5] = np.nan
    found = {(pair.first, pair.second) for pair in duplicate_pairs(values, 0.98, 8)}
    assert found == pairs_of_pandas(values, 0.98, 8)
    assert {(0, 14), (1, 15), (2, 16)} <= found


def test_each_correlation_is_that_of_scipy() -> None:
    rng = np.random.default_rng(2)
    x = rng.lognormal(size=200)
    y = x**2 * (1 + 0.01 * rng.normal(size=200))
    x[:40] = np.nan
    (pair,) = duplicate_pairs(np.column_stack([x, y]), 0.9, 8)
    assert pair.n == 160
    assert pair.pearson == pytest.approx(stats.pearsonr(x[40:], y[40:]).statistic)
    assert pair.spearman == pytest.approx(stats.spearmanr(x[40:], y[40:]).statistic)


def test_numbers_of_any_size_have_a_correlation() -> None:
    x = RNG.normal(size=100)
    for scale, offset in ((1e-30, 0.0), (1e30, 0.0), (1e-3, 1e4)):
        (pair,) = duplicate_pairs(np.column_stack([x, x * scale + offset]), 0.98, 8)
        assert pair.spearman == pytest.approx(1.0, abs=1e-6)


def test_one_event_in_common_is_no_pair() -> None:
    values = np.zeros((500, 2))
    values[3] = 4.0, 9.0
    assert duplicate_pairs(values, 0.98, 8) == []
    values[:, 1] += 0.01 * RNG.normal(size=500)  # and so it stays when the other column varies elsewhere
    assert duplicate_pairs(values, 0.98, 8) == []
    values[:] = 0
    values[::5] = RNG.normal(size=100)[:, None]
    assert [pair.n for pair in duplicate_pairs(values, 0.98, 8)] == [500]


@given(seed=st.integers(0, 2**32 - 1))
def test_the_order_of_rows_and_columns_is_no_input(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(40, 5))
    values = np.column_stack([values, values[:, 0] * 3 + 1, -(values[:, 1] ** 3)])
    values[rng.random(values.shape) < 0.1] = np.nan
    rows, columns = rng.permutation(40), rng.permutation(7)
    before = duplicate_pairs(values, 0.98, 8)
    after = duplicate_pairs(values[rows][:, columns], 0.98, 8)
    assert {frozenset((pair.first, pair.second)) for pair in before} == {
        frozenset((int(columns[pair.first]), int(columns[pair.second]))) for pair in after
    }
    one, other = column_statistics(values[:, 0]), column_statistics(values[rows, 0])
    assert (one.n, one.p50, one.top_value_share) == (other.n, other.p50, other.top_value_share)
    np.testing.assert_array_equal(one.sketch, other.sketch)
