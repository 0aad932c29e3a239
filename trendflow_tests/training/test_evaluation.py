"""Evaluation, verdicts and the quality gate on predictions made up for the purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from training.comparators import COMPARATORS
from training.config import GoldenConfig
from training.evaluation import evaluate, verdict
from training.gate import NORTH_STAR, quality_gate
from training.golden import golden_sets, store_golden_sets
from training.predictions import SCHEMA
from training.rows import HEADS, Rows
from trendflow.contracts.errors import TrendFlowError
from trendflow_tests.training.synthetic import training_table


def predictions(error: float, n: int = 150, seed: int = 0, width: float = 1.3) -> pa.Table:
    """All heads; the model errs by `error` standard deviations, every comparator by 2."""
    rows: list[dict[str, Any]] = []
    for head in HEADS:
        rng = np.random.default_rng(seed)
        y = rng.normal(5, 2, n)
        point = y + error * rng.normal(size=n)
        for i in range(n):
            rows.append(
                {
                    "platform_id": "youtube",
                    "video_id": f"v{i}",
                    "channel_id": f"c{i % 40}",
                    "fold": 0,
                    "part": "test",
                    "target": head.target,
                    "horizon": head.horizon,
                    "age_bucket": "<24h" if i < 20 else "1-30d",
                    "y": y[i],
                    "point": point[i],
                    "p10": point[i] - width * error,
                    "p50": point[i],
                    "p90": point[i] + width * error,
                    **{name: y[i] + 2 * rng.normal() for name in COMPARATORS},
                    "constant": 5.0,
                    "crossed": i < 15,
                    "rearranged": i < 30,
                }
            )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def test_a_good_model_passes_the_gate_against_a_worse_one() -> None:
    heads = evaluate(predictions(0.5), 200, 0, previous=predictions(1.0, seed=0))
    assert heads["views_14d"]["verdicts"]["loglinear"] == {"rmse": "better", "mae": "better", "spearman": "better"}
    assert heads["views_14d"]["verdicts"]["constant"]["spearman"] == "undefined"
    assert heads["views_14d"]["verdicts"]["previous"]["rmse"] == "better"
    # A normal error and ±1.3 standard deviations: 0.806 of a normal distribution.
    assert heads["views_14d"]["coverage"]["overall"]["value"] == pytest.approx(0.806, abs=0.08)
    gate = quality_gate(heads)
    assert [check["verdict"] for check in gate["checks"]] == ["pass"] * 5
    assert gate["passed"] is True


def test_cells_count_rows_channels_and_small_buckets() -> None:
    head = evaluate(predictions(0.5), 100, 0)["likes_7d"]
    assert (head["model"]["overall"]["n"], head["model"]["overall"]["n_channels"]) == (150, 40)
    young = head["model"]["buckets"]["<24h"]
    assert (young["n"], young["low_n"]) == (20, True)
    assert head["model"]["buckets"][">30d"]["rmse"] == {"value": None, "low": None, "high": None}
    assert "previous" not in head["differences"]
    assert head["repairs"] == {"n": 150, "crossed": 0.1, "rearranged": 0.2}


def test_a_model_that_beats_nothing_is_said_to() -> None:
    gate = quality_gate(evaluate(predictions(2.0), 100, 0))
    checks = {check["name"]: check for check in gate["checks"]}
    assert gate["passed"] is False
    assert checks["beats_comparators"]["verdict"] == "fail"
    assert {"head": "views_21d", "against": "loglinear"} in checks["beats_comparators"]["failed"]
    assert checks["previous_spearman"]["verdict"] == "not_judged"


def test_a_worse_model_than_the_current_fails() -> None:
    heads = evaluate(predictions(1.0), 200, 0, previous=predictions(0.3))
    checks = {check["name"]: check["verdict"] for check in quality_gate(heads)["checks"]}
    assert checks["previous_spearman"] == "fail"
    assert checks["previous_buckets"] == "fail"


def test_intervals_that_are_too_wide_or_crossed_fail() -> None:
    wide = quality_gate(evaluate(predictions(0.5, width=5.0), 100, 0))
    assert {check["name"]: check["verdict"] for check in wide["checks"]}["coverage"] == "fail"
    crossed = predictions(0.5, width=-1.3)
    found = {check["name"]: check["verdict"] for check in quality_gate(evaluate(crossed, 100, 0))["checks"]}
    assert found["quantiles_ordered"] == "fail"


def test_a_missing_head_fails_the_gate() -> None:
    heads = evaluate(predictions(0.5), 100, 0)
    del heads[NORTH_STAR[0]]
    checks = {check["name"]: check for check in quality_gate(heads)["checks"]}
    assert {"head": "views_14d", "against": "no_forecast"} in checks["beats_comparators"]["failed"]


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("spearman", 0.01, 0.2, "better"),
        ("spearman", -0.2, -0.01, "worse"),
        ("rmse", -0.2, -0.01, "better"),
        ("mae", 0.01, 0.2, "worse"),
        ("rmse", -0.1, 0.1, "undecided"),
        ("rmse", 0.0, 0.1, "undecided"),
        ("spearman", None, None, "undefined"),
    ],
)
def test_a_claim_needs_an_interval_without_zero(
    metric: str, low: float | None, high: float | None, expected: str
) -> None:
    assert verdict(metric, {"value": 0.0, "low": low, "high": high}) == expected


def test_a_dataset_of_other_horizons_is_refused() -> None:
    table = training_table(n=50).drop_columns(["target_likes_21d"])
    with pytest.raises(TrendFlowError, match="no targets likes_21d"):
        Rows.of(table)


def test_golden_sets_are_the_known_order() -> None:
    """By sha256sum: 1337::c 149d…, 1337::a 18ad…, 1337::d 9dfa…, 1337::e d797…, 1337::b e8da…."""
    ids = np.array(list("abcde"))
    sets = golden_sets(ids, GoldenConfig(holdout=2, regression_mini=1, max_share=0.6))
    assert ids[sets.holdout].tolist() == ["c", "a"]
    assert ids[sets.regression_mini].tolist() == ["d"]


def test_golden_sets_stay_small_in_a_small_dataset() -> None:
    sets = golden_sets(np.array([f"v{i}" for i in range(1000)]), GoldenConfig())
    assert len(sets.holdout) + len(sets.regression_mini) <= 100
    assert not set(sets.holdout.tolist()) & set(sets.regression_mini.tolist())
    whole = golden_sets(np.array([f"v{i}" for i in range(30_000)]), GoldenConfig())
    assert (len(whole.holdout), len(whole.regression_mini)) == (2000, 200)


def test_stored_golden_sets_cannot_change_for_one_dataset(tmp_path: Path) -> None:
    ids = np.array([f"v{i}" for i in range(100)])
    store_golden_sets(tmp_path, "f" * 64, ids, golden_sets(ids, GoldenConfig()))
    store_golden_sets(tmp_path, "f" * 64, ids, golden_sets(ids, GoldenConfig()))
    with pytest.raises(TrendFlowError) as caught:
        store_golden_sets(tmp_path, "f" * 64, ids, golden_sets(ids, GoldenConfig(max_share=0.2)))
    assert caught.value.error_code == "artifact_validation_failed"
