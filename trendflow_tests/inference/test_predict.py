"""One forecast from a SYNTHETIC model: its numbers, what it refuses, and what it never says."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.inference import model_row as model_row_module
from trendflow.inference.bundle import ModelBundle
from trendflow.inference.compatibility import spec_of
from trendflow.inference.model_row import model_row
from trendflow.inference.predict import Request, predict, read_models
from trendflow.inference.report import to_json, validate_report
from trendflow_tests.inference.manifests import HEADS
from trendflow_tests.inference.synthetic import SCHEMAS, T0, content, run_inputs, snapshot, write_model

CANARY = "canary-7f3e: a title nobody may store"
OFFSET = 0.1


def ask(folder: Path, **changes: Any) -> dict[str, Any]:
    models = read_models([folder], SCHEMAS)
    made = Request(job_id="job-1", run=run_inputs(), snapshot=snapshot(), models=models)
    return predict(dataclasses.replace(made, **changes), SCHEMAS)


def library(folder: Path, path: str, row: list[float]) -> float:
    """What LightGBM itself says of a row."""
    booster = lightgbm.Booster(model_file=str(folder / path))
    return float(booster.predict(np.array([row]), num_threads=1)[0])


def test_every_number_is_that_of_the_library_on_the_features_of_the_video(model: Path) -> None:
    """Age 10 h, language `en` is the second known level (code 3), p10 and p90 moved by the conformal offset, and each
    quantile in ascending order over the horizons."""
    document = ask(model)
    row = [1200.0, 40.0, 10.0, 3.0, 12.0, -16.0]
    for target, x0 in (("views", 1200.0), ("likes", 40.0)):
        expected: dict[str, list[float]] = {"p10": [], "p50": [], "p90": []}
        for days in (7, 14, 21):
            low, middle, high = sorted(
                library(model, f"models/{target}/{days}d.{p}.txt", row) for p in ("p10", "p50", "p90")
            )
            expected["p10"].append(min(low - OFFSET, middle))
            expected["p50"].append(middle)
            expected["p90"].append(max(high + OFFSET, middle))
        for name, values in expected.items():
            for days, y in zip((7, 14, 21), sorted(values), strict=True):
                found = document["outputs"]["heads"][f"{target}_{days}d"]
                assert found[f"absolute_{name}"] == pytest.approx(x0 + np.expm1(max(y, 0.0)))
    assert set(document["outputs"]["heads"]) == set(HEADS)
    assert (document["prediction_status"], document["degraded_path"], document["synthetic"]) == ("ok", [], False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"t0": datetime(9999, 12, 31, 23, tzinfo=UTC)}, "lies in the future"),
        ({"views": 1e23}, "'views'"),
        ({"likes": -1.0}, "'likes'"),
        ({"channel_subscribers": float("inf")}, "'channel_subscribers'"),
    ],
)
@pytest.mark.parametrize("requested", [None, "v2"])
def test_a_snapshot_that_nobody_can_have_taken_is_refused(
    model: Path, changes: dict[str, Any], said: str, requested: str | None
) -> None:
    with pytest.raises(TrendFlowError, match=said) as caught:
        ask(model, snapshot=snapshot(**changes), requested=requested)
    assert caught.value.error_code == "input_constraint_violated"


def test_a_forecast_that_falls_with_time_is_put_in_order_and_says_so(tmp_path: Path) -> None:
    """The model of 7 days says more than that of 21; the same numbers are given in ascending order."""
    folder = write_model(tmp_path, falling=True, offset=0.0)
    document = ask(folder)
    row = [1200.0, 40.0, 10.0, 3.0, 12.0, -16.0]
    said = {
        days: sorted(library(folder, f"models/views/{days}d.{name}.txt", row) for name in ("p10", "p50", "p90"))[1]
        for days in (7, 14, 21)
    }
    assert said[7] > said[21]
    heads = document["outputs"]["heads"]
    given = [heads[f"views_{days}d"]["y_p50"] for days in (7, 14, 21)]
    assert given == pytest.approx(sorted(said.values()))
    for name in ("p10", "p50", "p90"):
        counts = [heads[f"views_{days}d"][name] for days in (7, 14, 21)]
        assert counts == sorted(counts)
    assert {"views_7d", "views_21d"} <= set(document["outputs"]["put_in_order"]["horizons"])
    likes = ask(folder, snapshot=snapshot(views=20_000.0, likes=0.0))["outputs"]["put_in_order"]["horizons"]
    assert not any(head.startswith("likes") for head in likes), "a masked head has nothing to put in order"


def test_formulas_and_coverage_stand_beside_it(model: Path) -> None:
    document = ask(model)
    head = document["comparators"]["velocity"]["views_14d"]
    assert head["delta"] == pytest.approx(1200 / (10 / 24) * 14)
    assert document["comparators"]["loglinear"]["views_7d"]["y"] == pytest.approx(0.5 + 0.25 * np.log1p(1200))
    assert document["interval"]["measured"]["likes_21d"] == {
        "coverage": 0.81, "low": 0.74, "high": 0.88, "n": 120, "low_n": False,
    }  # fmt: skip
    older = ask(model, snapshot=snapshot(t0=T0 + timedelta(days=3), captured_at=T0 + timedelta(days=3)))
    assert older["interval"]["age_bucket"] == "1-30d"
    assert older["interval"]["measured"]["likes_21d"]["low_n"] is True


def test_drivers_add_up_to_what_the_library_predicts(model: Path) -> None:
    document = ask(model)
    row = [1200.0, 40.0, 10.0, 3.0, 12.0, -16.0]
    for head, found in document["explainability"]["heads"].items():
        target, horizon = head.split("_")
        assert found["prediction"] == pytest.approx(library(model, f"models/{target}/{horizon}.txt", row))
        parts = [found["base"], found["others"], *(driver["contribution"] for driver in found["drivers"])]
        assert sum(parts) == pytest.approx(found["prediction"])
    values = {row["feature"]: row["value"] for row in document["explainability"]["heads"]["views_7d"]["drivers"]}
    assert values["views_0"] == 1200.0


def test_inputs_are_summed_up(model: Path) -> None:
    seen = ask(model, run=run_inputs(content=content((np.nan, -16.0))))["inputs_summary"]
    assert (seen["frames_used"], seen["audio_segments_used"], seen["comments_used"]) == (120, 14, 0)
    assert (seen["features_total"], seen["features_missing"]) == (6, 1)
    assert seen["modalities_present"] == ["audio"]
    assert (seen["age_hours"], seen["age_bucket"], seen["x0_views"], seen["x0_likes"]) == (10.0, "<24h", 1200.0, 40.0)
    assert seen["warnings"] == ["sampling_shortfall"]


def test_one_row_is_the_row_a_table_of_many_would_have(model: Path) -> None:
    """The same code builds both: whatever stands beside a video changes nothing of its row."""
    from trendflow.dataset.table.first_sight import first_sight
    from trendflow.dataset.table.rows import content_rows, feature_rows

    bundle = ModelBundle.read(model, SCHEMAS)
    spec = spec_of(bundle.spec, bundle.manifest)
    run, shot = run_inputs(), snapshot()
    alone = model_row(shot, run, spec, bundle.encoding).table
    other = snapshot(views=7.0, likes=0.0, language="de", title="Another")
    sights = [
        first_sight(
            found.video,
            found.first,
            spec.leakage.tolerance_minutes,
            media_duration_seconds=62.0,
            run_created_at=T0 + timedelta(hours=1),
        )
        for found in (other, shot)
    ]
    assert run.content is not None
    table, _ = feature_rows(sights, content_rows([content((3.0, -30.0)), run.content], spec, run.kinds), spec)
    # As text, because NaN differs from itself.
    assert repr(alone.select(table.column_names).to_pylist()) == repr(table.slice(1).to_pylist())


def test_hidden_likes_are_not_forecast(model: Path) -> None:
    document = ask(model, snapshot=snapshot(views=20_000.0, likes=0.0))
    heads = document["outputs"]["heads"]
    assert {head for head, found in heads.items() if found["masked"]} == {"likes_7d", "likes_14d", "likes_21d"}
    assert document["inputs_summary"]["x0_likes"] is None
    assert "likes_hidden" in document["inputs_summary"]["warnings"]
    assert document["comparators"]["velocity"]["likes_7d"] == {"y": None, "delta": None, "absolute": None}


@pytest.mark.parametrize("shot", [None, snapshot(views=float("nan"), likes=float("nan"))], ids=["none", "empty"])
def test_without_a_first_count_there_is_no_number_at_all(model: Path, shot: Any) -> None:
    document = ask(model, snapshot=shot)
    assert document["prediction_status"] == "unavailable"
    assert [document[name] for name in ("model_used", "outputs", "comparators", "interval", "explainability")] == [
        None
    ] * 5
    assert document["degraded_path"][-1]["missing"] == ["first_snapshot"]


def test_a_better_model_that_is_not_there_is_named(model: Path) -> None:
    document = ask(model, requested="v2")
    assert document["prediction_status"] == "degraded"
    assert [(step["from"], step["to"]) for step in document["degraded_path"]] == [("v2", "v1"), ("v1", "baseline")]
    assert document["model_requested"]["training_run_id"] is None
    assert document["model_used"]["tier"] == "baseline"


def test_a_model_of_metadata_needs_nothing_of_the_run(metadata_model: Path) -> None:
    document = ask(metadata_model, run=run_inputs(content=None, components={}))
    assert document["prediction_status"] == "ok"
    assert document["inputs_summary"]["features_total"] == 4


def test_a_model_of_content_without_a_vector_is_unavailable(model: Path) -> None:
    document = ask(model, run=run_inputs(content=None))
    assert document["degraded_path"] == [
        {"from": "baseline", "to": None, "reason": "inputs_missing", "missing": ["feature_vector"]}
    ]


def test_a_synthetic_model_is_refused_or_stamped(synthetic_model: Path) -> None:
    with pytest.raises(TrendFlowError, match="SYNTHETIC"):
        ask(synthetic_model)
    document = ask(synthetic_model, allow_synthetic=True)
    assert document["synthetic"] is True
    assert document["model_used"]["synthetic"] is True


def test_a_changed_model_file_is_refused(model: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    path = copy / "models/views/7d.p50.txt"
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(TrendFlowError) as caught:
        ask(copy)
    assert caught.value.error_code == "weights_missing"


def test_the_guard_stops_a_feature_that_was_observed_too_late(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted leak: content whose provenance says that it was read off a text that came with the run, later."""
    found = content()
    late = dataclasses.replace(found.layout, source_kinds=("document",) * 2, observed_at=("captured_at",) * 2)
    read_late = dataclasses.replace(found, layout=late)
    run = run_inputs(content=read_late, created_at="2026-03-02T03:00:00.000Z")
    # What was captured too late is unknown, hence no leak …
    seen = ask(model, run=run)["inputs_summary"]
    assert (seen["features_missing"], "document_captured_late" in seen["warnings"]) == (2, True)
    in_time = ask(model, run=run_inputs(content=read_late))["inputs_summary"]
    assert (in_time["features_missing"], "document_captured_late" in in_time["warnings"]) == (0, False)
    # … and if the rows forgot that, the guard would not.
    real = model_row_module.feature_rows

    def forgetful(sights: Any, *rest: Any) -> Any:
        return real([dataclasses.replace(sight, run_document_late=False) for sight in sights], *rest)

    monkeypatch.setattr(model_row_module, "feature_rows", forgetful)
    with pytest.raises(TrendFlowError) as caught:
        ask(model, run=run)
    assert caught.value.error_code == "leakage_violation"


def test_a_snapshot_before_publication_is_refused(model: Path) -> None:
    with pytest.raises(TrendFlowError) as caught:
        ask(model, snapshot=snapshot(t0=T0 - timedelta(days=2)))
    assert caught.value.error_code == "input_constraint_violated"


def test_no_text_and_no_path_is_in_the_report(model: Path) -> None:
    texts = dict.fromkeys(("title", "description", "channel_title", "channel_id", "language"), CANARY)
    data = to_json(ask(model, snapshot=snapshot(**texts, tags=[CANARY]))).decode()
    assert "canary" not in data
    assert str(model) not in data
    assert "/" not in data


def test_the_same_question_gives_the_same_answer(model: Path) -> None:
    volatile = ("timestamps", "stages")
    first, second = (ask(model) for _ in range(2))
    assert {k: v for k, v in first.items() if k not in volatile} == {
        k: v for k, v in second.items() if k not in volatile
    }
    assert validate_report(json.loads(to_json(first)), SCHEMAS) == []
