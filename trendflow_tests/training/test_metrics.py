"""Metrics and their bootstrap against scipy, scikit-learn and resamples that are really drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from training.metrics import METRICS, ChannelBootstrap, Estimate


def rows(n: int = 120, channels: int = 25, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=n).round(1)  # rounding makes ties
    return np.array([f"c{i}" for i in rng.integers(0, channels, n)]), y, (y + rng.normal(size=n)).round(1)


def test_values_are_those_of_scipy_and_sklearn() -> None:
    channel, y, predicted = rows()
    found = ChannelBootstrap(channel, 10, 0).scores(y, predicted)
    assert found["rmse"].value == pytest.approx(root_mean_squared_error(y, predicted), abs=1e-12)
    assert found["mae"].value == pytest.approx(mean_absolute_error(y, predicted), abs=1e-12)
    assert found["spearman"].value == pytest.approx(stats.spearmanr(y, predicted).statistic, abs=1e-12)


def test_a_resample_equals_the_rows_repeated() -> None:
    channel, y, predicted = rows()
    bootstrap = ChannelBootstrap(channel, 20, 5)
    found = bootstrap.scores(y, predicted)
    names = np.unique(channel)
    # The same draws from the generator's documented distribution, expanded row by row.
    counts = np.random.default_rng(5).multinomial(len(names), np.full(len(names), 1 / len(names)), 20)
    for sample, count in enumerate(counts):
        at = np.repeat(np.arange(len(y)), count[np.searchsorted(names, channel)])
        assert found["rmse"].samples[sample] == pytest.approx(root_mean_squared_error(y[at], predicted[at]), abs=1e-10)
        assert found["mae"].samples[sample] == pytest.approx(mean_absolute_error(y[at], predicted[at]), abs=1e-10)
        expected = stats.spearmanr(y[at], predicted[at]).statistic
        assert found["spearman"].samples[sample] == pytest.approx(expected, abs=1e-10)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    channel, y, predicted = rows()
    whole = ChannelBootstrap(channel, 50, 1).scores(y, predicted)
    monkeypatch.setattr("training.metrics._CHUNK_ELEMENTS", 500)
    parts = ChannelBootstrap(channel, 50, 1).scores(y, predicted)
    for metric in METRICS:
        np.testing.assert_allclose(parts[metric].samples, whole[metric].samples, atol=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_spearman_is_within_its_range_and_blind_to_monotone_maps(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    y, predicted = rng.integers(0, 5, n).astype(float), rng.integers(0, 5, n).astype(float)
    bootstrap = ChannelBootstrap(np.arange(n).astype(str), 100, 0)
    first, second = bootstrap.scores(y, predicted)["spearman"], bootstrap.scores(y, np.exp(predicted))["spearman"]
    np.testing.assert_allclose(first.samples, second.samples, atol=1e-9, equal_nan=True)
    assert np.all(np.isnan(first.samples) | (np.abs(first.samples) <= 1 + 1e-9))


def test_a_constant_forecast_has_no_spearman_but_an_error() -> None:
    channel, y, _ = rows()
    found = ChannelBootstrap(channel, 100, 0).scores(y, np.full(len(y), 0.1))
    assert found["spearman"].as_dict() == {"value": None, "low": None, "high": None}
    assert found["rmse"].as_dict()["low"] is not None


def test_a_forecast_that_varies_in_one_channel_alone_has_no_interval() -> None:
    """A third of the resamples leave that channel out, (1 − 1/25)^25 = 0.36, and there the forecast is a constant."""
    channel, y = np.repeat(np.arange(25), 4).astype(str), np.random.default_rng(0).normal(size=100)
    found = ChannelBootstrap(channel, 400, 0).scores(y, np.where(np.arange(100) == 0, 1.0, 0.0))["spearman"]
    assert np.mean(np.isnan(found.samples)) == pytest.approx(0.36, abs=0.08)
    assert found.as_dict()["value"] is not None
    assert found.as_dict()["low"] is None


def test_one_channel_has_a_value_without_an_interval_and_few_rows_are_marked() -> None:
    _, y, predicted = rows(n=10)
    bootstrap = ChannelBootstrap(np.full(10, "only"), 100, 0)
    cell = bootstrap.cell(bootstrap.scores(y, predicted))
    assert (cell["n"], cell["n_channels"], cell["low_n"]) == (10, 1, True)
    assert cell["rmse"]["value"] is not None
    assert cell["rmse"]["low"] is None


def test_the_interval_of_a_mean_holds_the_truth_as_often_as_it_says() -> None:
    """300 simulated sets of 60 channels with 3 equal rows each; the nominal share is 0.95."""
    rng = np.random.default_rng(11)
    channel = np.repeat(np.arange(60), 3).astype(str)
    hits = 0
    for seed in range(300):
        found = ChannelBootstrap(channel, 300, seed).mean(np.repeat(rng.normal(2.0, 1.0, 60), 3)).as_dict()
        assert found["low"] is not None
        assert found["high"] is not None
        hits += found["low"] <= 2.0 <= found["high"]
    assert 0.90 <= hits / 300 <= 0.98


def test_differences_are_paired() -> None:
    """A constant gain in error has no spread, although both errors vary between resamples."""
    channel, y, _ = rows()
    bootstrap = ChannelBootstrap(channel, 200, 0)
    error = np.abs(np.random.default_rng(0).normal(size=len(y)))
    change = bootstrap.mean(error + 0.25) - bootstrap.mean(error)
    assert change.as_dict() == pytest.approx({"value": 0.25, "low": 0.25, "high": 0.25})
    assert isinstance(change, Estimate)
