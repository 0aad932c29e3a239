"""An improvement is claimed only where the interval says so, in the direction of the metric."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation import verdict as judge
from training.report.run_files import Estimate, read_reported_run
from training.report.verdicts import against_persistence, verdict
from trendflow_tests.training.report.synthetic import difference, head_metrics, write_run


@given(st.floats(-1, 1), st.floats(1e-6, 1))
def test_only_an_interval_clear_of_zero_says_something(middle: float, half: float) -> None:
    found = {"value": middle, "low": middle - half, "high": middle + half}
    expected = "better" if middle - half > 0 else "worse" if middle + half < 0 else "undecided"
    assert judge("spearman", found) == expected
    turned = {"better": "worse", "worse": "better", "undecided": "undecided"}[expected]
    assert judge("rmse", found) == judge("mae", found) == turned


def test_no_interval_is_no_verdict() -> None:
    for part in (None, {"value": 0.3, "low": None, "high": None}):
        assert judge("spearman", Estimate.of(part).as_dict()) == "undefined"


@pytest.mark.parametrize(("gap", "word"), [(0.03, "better"), (0.004, "undecided"), (-0.03, "worse")])
def test_the_least_favourable_formula_of_persistence_counts(tmp_path: Path, gap: float, word: str) -> None:
    """The model beats the first formula by 0.1 in every case."""
    run = read_reported_run(write_run(tmp_path, views_7d=head_metrics(against_persistence=gap)))
    assert verdict(run, "views_7d", "persistence").word == "better"
    assert against_persistence(run, "views_7d").word == word


def test_a_constant_orders_nothing_and_is_judged_by_its_error(tmp_path: Path) -> None:
    run = read_reported_run(write_run(tmp_path))
    found = verdict(run, "views_7d", "constant")
    assert (found.metric, found.word) == ("rmse", "better")


def test_a_head_without_a_formula_is_not_called_better(tmp_path: Path) -> None:
    head = head_metrics()
    for name in ("persistence", "loglinear"):
        del head["comparators"][name], head["differences"][name]
    run = read_reported_run(write_run(tmp_path, views_7d=head))
    assert against_persistence(run, "views_7d").word == "undefined"


def test_buckets_have_verdicts_of_their_own(tmp_path: Path) -> None:
    head = head_metrics()
    head["differences"]["loglinear"]["buckets"][">30d"] = difference(-0.2)["overall"]
    run = read_reported_run(write_run(tmp_path, views_7d=head))
    assert verdict(run, "views_7d", "loglinear", bucket=">30d").word == "worse"
    assert verdict(run, "views_7d", "loglinear", bucket="1-30d").word == "better"
    assert head["model"]["buckets"]["<24h"]["n"] == 12
    assert verdict(run, "views_7d", "loglinear", bucket="<24h").word == "few", "12 videos allow no claim"
