"""Schedules as the UI shows them: when they tick, whether they are on, and why they skip."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster import (
    AssetKey,
    DagsterInstance,
    DagsterRunStatus,
    RunRequest,
    SkipReason,
    build_schedule_context,
)
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy

from trendflow.config import Settings
from trendflow.definitions import build_definitions
from trendflow.orchestration.assets import REPORT
from trendflow.orchestration.dataset_assets import COLLECTED, SNAPSHOTS, TRAINING_DATASET
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.health_step import HEALTH
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.state.global_manager import GlobalManager

SHIPPED = {
    "clean_up_daily": ("0 2 * * *", "RUNNING"),
    "compact_daily": ("0 3 * * *", "RUNNING"),
    "collect_daily": ("0 4 * * *", "STOPPED"),
    "check_features_daily": ("0 5 * * *", "RUNNING"),
    "build_weekly": ("0 6 * * 1", "STOPPED"),
}


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(Settings(home=tmp_path / "home"))


@pytest.fixture
def tick(deployment: Deployment, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TrendFlowResource, "deployment", property(lambda self: deployment))
    schedules = {found.name: found for found in build_definitions(deployment).get_repository_def().schedule_defs}

    def of(name: str) -> str | None:
        """Why the schedule skips; None when it asks for a run."""
        with build_schedule_context(instance, resources={"trendflow": TrendFlowResource()}) as context:
            answer = schedules[name](context)
        if isinstance(answer, SkipReason):
            assert answer.skip_message
            return answer.skip_message
        assert isinstance(answer, RunRequest)
        return None

    return of


def test_every_schedule_tells_when_it_ticks_and_whether_it_is_on(deployment: Deployment) -> None:
    found = build_definitions(deployment).get_repository_def().schedule_defs
    assert {each.name: (each.cron_schedule, each.default_status.value) for each in found} == SHIPPED
    assert {each.execution_timezone for each in found} == {"UTC"}
    assert all(each.description for each in found)


@pytest.mark.parametrize(("name", "job"), [("clean_up_daily", "clean_up"), ("compact_daily", "compact_indexes")])
def test_upkeep_is_done_once_at_a_time(deployment: Deployment, instance: DagsterInstance, tick, name, job) -> None:
    assert tick(name) is None
    running = instance.create_run_for_job(
        build_definitions(deployment).resolve_job_def(job), status=DagsterRunStatus.STARTED
    )
    assert tick(name) == f"The run {running.run_id} of {job} has not ended yet."
    instance.report_run_failed(running)
    assert tick(name) is None


def test_features_are_judged_once_there_are_some(deployment: Deployment, tick) -> None:
    assert tick("check_features_daily") == "No run has succeeded lately."
    manager = GlobalManager.open(deployment.states, holder="daemon")
    manager.run_status("upload/my-video/run-1", "success")
    assert tick("check_features_daily") is None


def test_what_lacks_a_key_or_material_says_so(tick) -> None:
    assert "TRENDFLOW_YOUTUBE_API_KEY" in tick("collect_daily")
    assert "TRENDFLOW_SNAPSHOT_FOLDER" in tick("build_weekly")


def test_what_a_schedule_makes_must_stay_fresh_and_what_a_run_makes_need_not(deployment: Deployment) -> None:
    graph = build_definitions(deployment).resolve_asset_graph()
    found = {
        name: graph.get(AssetKey(name)).freshness_policy for name in (COLLECTED, SNAPSHOTS, TRAINING_DATASET, HEALTH)
    }
    for name, days in {COLLECTED: 1, SNAPSHOTS: 7, TRAINING_DATASET: 7, HEALTH: 1}.items():
        policy = found[name]
        assert isinstance(policy, TimeWindowFreshnessPolicy)
        assert policy.warn_window is not None
        # It warns after a tick was missed, and fails after the next one was.
        assert days < policy.warn_window.to_timedelta().total_seconds() / 86400 < days + 1.1
        assert 2 * days < policy.fail_window.to_timedelta().total_seconds() / 86400 < 2 * days + 1.1
    for name in (REPORT, *deployment.graph.components):
        assert graph.get(AssetKey(name)).freshness_policy is None
