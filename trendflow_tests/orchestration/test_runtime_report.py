"""The runtime report of real runs: its numbers are those that the registry, the manifest and the settings have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trendflow.config import Settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import validate_document
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.knobs import knobs_of
from trendflow.orchestration.run_state import conclude
from trendflow.orchestration.runs import RunContext
from trendflow.storage.cost_registry import CostRegistry
from trendflow_tests.orchestration.attempts import deployment_for
from trendflow_tests.orchestration.probe import NAME, add_probe, value
from trendflow_tests.orchestration.runs import Here, Submit
from trendflow_tests.orchestration.scheduling import Stage, handed_over

KNOBS = {"max_parallel_videos": 1, "batch_size": 4, "onnx_threads": 1, "handed_over_runs": 50}


@pytest.fixture
def deployment(tmp_path: Path, models_dir: Path) -> Deployment:
    settings = Settings(home=tmp_path / "home", models=models_dir, batch_size=4, onnx_threads=1)
    return deployment_for(settings)


def report_of(run: RunContext) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(run.deployment.store.get(f"state/{run.run_path}/scheduler_runtime_report.json"))
    assert validate_document(run.deployment.schemas, "scheduler_runtime_report_v1", report) == []
    assert report["run"] == run.identity.as_dict()
    return report


def test_resources_are_those_of_the_registry_and_knobs_those_of_the_settings(
    deployment: Deployment, clip: Path, submit: Submit, here: Here
) -> None:
    add_probe(deployment, lambda inputs: value(1.0))
    first, second = submit(deployment, clip), submit(deployment, clip)
    assert (here(first), here(second)) == ("success", "success")
    report = report_of(first)
    assert report["knobs"] == KNOBS
    assert (report["cache"]["computed"], report["deliveries"]) == (2, 1)
    rows = CostRegistry(deployment.store, deployment.schemas).rows()
    whole = {row["component"]: row for row in rows if row["component_part"] == "whole"}
    assert "segmenter" in whole
    for name, row in whole.items():
        found = report["components"][name]
        for field in ("unit", "units", "latency_ms_per_unit", "cpu_rss_peak_mb", "gpu_memory_per_task_mb"):
            assert found[field] == row[field]
        assert found["batch_size"] == row["knobs"]["batch_size"]
    events = deployment.states.events(first.run_path)
    spans = {
        name: [event.ts for event in events if (event.type, event.subject) == ("component_status", name)]
        for name in ("segmenter", NAME)
    }
    assert {name: [row["started_at"], row["finished_at"]] for name, row in report["components"].items()} == spans
    again = report_of(second)
    assert (again["cache"]["cached"], again["cache"]["computed"], again["knobs"]) == (2, 0, KNOBS)
    assert {row["reasons"]["units"] for row in again["components"].values()} == {"cached"}


def test_a_run_that_fails_and_one_that_never_began_have_one_too(
    deployment: Deployment, clip: Path, submit: Submit, here: Here
) -> None:
    def fails(inputs: object) -> Any:
        raise TrendFlowError("weights_missing", "The test says so.")

    add_probe(deployment, fails)
    run, waiting = submit(deployment, clip), submit(deployment, clip)
    assert here(run) == "error"
    report = report_of(run)
    assert (report["status"], report["error_code"]) == ("error", "weights_missing")
    assert report["components"][NAME]["reasons"] == dict.fromkeys(
        ("unit", "units", "latency_ms_per_unit", "cpu_rss_peak_mb", "gpu_memory_per_task_mb", "batch_size"), "failed"
    )
    assert conclude(deployment, waiting.run_path, TrendFlowError("cancelled", "The run was cancelled."))
    report = report_of(waiting)
    assert (report["status"], report["knobs"], report["queue"]["started_at"]) == ("cancelled", None, None)


def test_level_1_holds_the_knobs_of_the_deployment(stage: Stage) -> None:
    handed_over(stage, "a-video")
    knobs = stage.deployment.states.read_global()["knobs"]
    mine = knobs_of(stage.deployment.settings)
    assert mine["handed_over_runs"] == 4
    assert {name: knobs[name] for name in mine} == mine
    assert knobs.keys() > mine.keys()  # and those of submissions


@pytest.mark.parametrize(("asked", "told"), [((None, None), ("auto", "auto")), ((8, 3), (8, 3))])
def test_knobs_are_told_as_they_are_set(asked: tuple[int | None, int | None], told: tuple[int | str, ...]) -> None:
    settings = Settings().model_copy(update=dict(zip(("batch_size", "onnx_threads"), asked, strict=True)))
    knobs = knobs_of(settings)
    assert (knobs["batch_size"], knobs["onnx_threads"], knobs["max_parallel_videos"]) == (*told, 1)
