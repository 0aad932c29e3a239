"""Comparators against scikit-learn, closed forms and a scan of the past written another way."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression

from training.comparators import COMPARATORS, FittedComparators, past_channel_medians
from training.rows import HEADS, Rows
from trendflow.inference.comparators import LogLinear, velocity
from trendflow_tests.training.synthetic import training_table

HEAD = HEADS[1]


def test_velocity_is_the_formula() -> None:
    """1000 views in 2 days make 500 a day; 10 views in the first ten minutes count as an hour of life."""
    found = velocity(np.array([1000.0, 10.0, 0.0]), np.array([48.0, 1 / 6, 5.0]), 14)
    np.testing.assert_allclose(found, np.log1p([7000.0, 10 * 24 * 14, 0.0]))


def test_lines_are_least_squares() -> None:
    table = training_table(n=200).filter(pa.compute.field("mask_views_14d"))
    y = table.column("target_views_14d").to_numpy()
    found = FittedComparators.fit(table, y, HEAD)
    x = np.log1p(np.column_stack([table.column(n).to_numpy() for n in ("x0_views", "video_age_hours_at_snapshot1")]))
    expected = LinearRegression().fit(x, y)
    line = found.lines["loglinear"]
    assert line.intercept == pytest.approx(expected.intercept_, abs=1e-8)
    assert line.coefficients == pytest.approx(expected.coef_, abs=1e-8)
    np.testing.assert_allclose(line.predict(table), np.maximum(expected.predict(x), 0), atol=1e-8)
    assert found.constant == np.median(y)
    assert found.lines["persistence"].columns == ("views_0",)
    assert len(found.lines["loglinear_multivariate"].columns) >= 5


def test_missing_values_take_the_train_median() -> None:
    train = pa.table({"a": [0.0, 1.0, 3.0, None], "b": pa.array([None] * 4, pa.float64())})
    line = LogLinear.fit(train, ("a", "b"), np.array([1.0, 2.0, 3.0, 2.0]))
    assert line.columns == ("a",)
    assert line.fill == pytest.approx((np.log1p(1.0),))
    at_median, missing = line.predict(pa.table({"a": [1.0, None]}))
    assert missing == at_median
    assert LogLinear.from_dict(line.as_dict()) == line


def test_every_comparator_is_predicted() -> None:
    table = training_table(n=100)
    y = np.nan_to_num(table.column("target_views_14d").to_numpy())
    found = FittedComparators.fit(table, y, HEAD).predict(table, HEAD, np.full(100, np.nan))
    assert tuple(found) == COMPARATORS
    np.testing.assert_array_equal(found["channel_median"], found["constant"])


def test_channel_medians_know_the_past_only() -> None:
    rows = Rows.of(training_table(n=200, channels=6))
    found = past_channel_medians(rows, 0, np.arange(200))
    known = 0
    for row in range(200):
        past = [
            rows.y[other, 0]
            for other in range(200)
            if other != row
            and rows.channel[other] == rows.channel[row]
            and not np.isnan(rows.y[other, 0])
            and rows.observed_at[other, 0] <= rows.t0[row]
        ]
        if past:
            known += 1
            assert found[row] == np.median(past)
        else:
            assert np.isnan(found[row])
    assert known > 100
