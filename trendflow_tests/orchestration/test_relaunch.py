"""Launching failed runs again: which ones, when, how many, and that the run's own records tell of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, DagsterInstance, DagsterRun, DagsterRunStatus, RunRequest, SkipReason, job
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from trendflow.components.base import ComponentInputs
from trendflow.config import Settings
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import ERROR_RULES, TrendFlowError
from trendflow.contracts.graph import load_graph
from trendflow.contracts.package_data import data_path
from trendflow.orchestration import wrapper
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.relaunch import RelaunchPlan, RetryBudget, close, plan_relaunches
from trendflow.orchestration.relaunch_sensor import relaunch_due
from trendflow.orchestration.retries import LEFT_TAG, RETRY_TAG, USED_TAG, failure_tags
from trendflow.orchestration.run_state import conclude
from trendflow.orchestration.runs import RunContext
from trendflow.state.global_manager import GlobalManager
from trendflow.state.run_manager import RunManager
from trendflow_tests.orchestration.attempts import deployment_for
from trendflow_tests.orchestration.idle_job import nothing
from trendflow_tests.orchestration.probe import add_probe, value
from trendflow_tests.orchestration.runs import Here, Submit, assert_state_agrees, with_profile

GRAPH = load_graph(data_path("component_graph.yaml"))
KEY = "my-video/run-1"


@job(name="process_video")
def processing() -> None:
    nothing()


@job(name="__ASSET_JOB")
def of_the_ui() -> None:
    nothing()


@job
def forecast_video() -> None:
    nothing()


def launched(
    instance: DagsterInstance,
    key: str = KEY,
    code: str | None = "storage_unavailable",
    *,
    of=processing,
    remote: bool = True,
    selection: frozenset[AssetKey] | None = None,
    **tags: str,
) -> DagsterRun:
    """A run as the daemon launches it, which has failed of `code`."""
    repository = RemoteRepositoryOrigin(InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="m")), "r")
    run = instance.create_run(
        job_name=of.name,
        run_id=None,
        run_config=None,
        status=DagsterRunStatus.STARTED,
        tags={"dagster/partition": key, **({} if code is None else failure_tags(tags, code)), **tags},
        root_run_id=None,
        parent_run_id=None,
        step_keys_to_execute=None,
        execution_plan_snapshot=None,
        job_snapshot=None,
        parent_job_snapshot=None,
        asset_selection=selection,
        asset_check_selection=None,
        resolved_op_selection=None,
        op_selection=None,
        remote_job_origin=RemoteJobOrigin(repository, of.name) if remote else None,
        job_code_origin=None,
        asset_graph=of.asset_layer.asset_graph,
    )
    instance.report_run_failed(run)
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def plan(instance: DagsterInstance, later: float = 1000.0, budget: RetryBudget | None = None) -> RelaunchPlan:
    """The plan `later` seconds from now."""
    return plan_relaunches(instance, GRAPH, datetime.now(UTC) + timedelta(seconds=later), budget)


def test_a_run_waits_longer_before_each_further_attempt(instance: DagsterInstance) -> None:
    again: dict[str, str] = {}
    for attempt, wait_s in enumerate((30, 60, 120), 1):
        failed = launched(instance, **again)
        early = plan(instance, later=wait_s - 25)
        assert (early.due, early.waiting) == ((), 1)
        assert "wait" in early.reason
        (due,) = plan(instance, later=wait_s + 1).due
        assert (due.run.run_id, due.error_code, due.attempt) == (failed.run_id, "storage_unavailable", attempt)
        again = {name: due.tags[name] for name in (RETRY_TAG, USED_TAG)}
        assert again == {RETRY_TAG: str(attempt), USED_TAG: str(attempt)}
    launched(instance, **again)
    spent = plan(instance)
    assert (spent.due, spent.held, spent.waiting) == ((), 0, 0)


def test_the_error_code_decides_how_often(instance: DagsterInstance) -> None:
    done = {("network_error", 2), ("network_error", 3), ("timeout", 1), ("timeout", 2), ("out_of_memory", 0)}
    for code, retries in sorted({*done, ("internal_error", 0), ("rate_limited", 0)}):
        used = {RETRY_TAG: str(retries), USED_TAG: str(retries)} if retries else {}
        launched(instance, f"{code}/{retries}", code, **used)
    found = {(relaunch.error_code, relaunch.attempt) for relaunch in plan(instance).due}
    assert found == {("network_error", 3), ("timeout", 2), ("rate_limited", 1)}


def test_what_is_no_video_run_of_the_daemon_is_left_alone(instance: DagsterInstance) -> None:
    launched(instance, "a/1", code=None)
    launched(instance, "b/1", of=forecast_video)
    launched(instance, "c/1", remote=False)
    launched(instance, "d/1", of=of_the_ui, selection=frozenset({AssetKey("prediction")}))
    launched(instance, "d/2", of=of_the_ui, selection=frozenset({AssetKey("prediction"), AssetKey("core_clip")}))
    assert plan(instance).due == ()
    mine = launched(instance, "e/1", of=of_the_ui, selection=frozenset({AssetKey("core_clip")}))
    assert [found.run.run_id for found in plan(instance).due] == [mine.run_id]


def test_only_the_last_attempt_counts_whoever_launched_it(instance: DagsterInstance) -> None:
    launched(instance)
    launched(instance, code="internal_error", of=of_the_ui, selection=frozenset({AssetKey("core_clip")}))
    assert plan(instance).due == ()
    launched(instance, of=forecast_video, code=None)
    assert plan(instance).due == (), "another job on the partition is no attempt"


def test_all_runs_together_have_a_budget(instance: DagsterInstance) -> None:
    budget = RetryBudget(share=0.5, at_least=2)
    for number in range(3):
        launched(instance, f"video/{number}")
    found = plan(instance, budget=budget)
    assert [relaunch.partition_key for relaunch in found.due] == ["video/0", "video/1"], "the oldest first"
    assert (found.held, found.spent, found.allowed) == (1, 0, 2)
    assert "0 of 2" in found.reason
    launched(instance, "other/1", **{RETRY_TAG: "3", USED_TAG: "3"})
    launched(instance, "other/2", **{RETRY_TAG: "3", USED_TAG: "3"})
    found = plan(instance, budget=budget)
    assert (len(found.due), found.held, found.spent, found.allowed) == (0, 3, 2, 2)
    for number in range(5):
        launched(instance, f"more/{number}", code="video_unreadable")
    found = plan(instance, budget=budget)
    assert (len(found.due), found.held, found.allowed) == (3, 0, 5), "half of ten that ended"
    later = plan(instance, later=2 * 3600, budget=budget)
    assert (later.spent, len(later.due), later.held) == (0, 2, 1), "an hour passed without runs"
    assert plan(instance, later=25 * 3600, budget=budget).held == 0, "after a day it stays as it is"


@pytest.mark.parametrize(
    ("code", "component_retries", "left"),
    [
        ("storage_unavailable", None, 3),  # outside of components
        ("storage_unavailable", 0, 3),  # its requests were repeated, the component was not
        ("storage_unavailable", 3, 0),
        ("network_error", 0, 0),  # a download that asked the platform as often as it may
        ("network_error", 3, 0),
        ("timeout", 2, 0),
        ("timeout", 0, 0),  # of the whole run
        ("triton_unavailable", 2, 0),
        ("internal_error", None, 0),
    ],
)
def test_retries_inside_of_a_run_and_launches_share_one_number(
    code: str, component_retries: int | None, left: int
) -> None:
    assert failure_tags({}, code, component_retries)[LEFT_TAG] == str(left)
    used = {USED_TAG: "2"}
    assert failure_tags(used, code, component_retries)[LEFT_TAG] == str(max(0, left - 2))


def test_a_plan_reads_no_more_than_its_budget_needs(instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trendflow.orchestration.relaunch.PAGE", 2)
    for number in range(7):
        launched(instance, f"video/{number}")
    asked: list[int] = []
    read = instance.get_run_records

    def counted(*args: Any, **options: Any) -> Any:
        found = read(*args, **options)
        asked.append(len(found))
        return found

    monkeypatch.setattr(instance, "get_run_records", counted)
    found = plan(instance, budget=RetryBudget(share=0.0, at_least=1))
    assert [relaunch.partition_key for relaunch in found.due] == ["video/0"]
    assert found.held == 6
    assert sum(asked) == 4, "one page, and the attempts at its runs"


def test_a_closed_run_is_looked_at_no_more(instance: DagsterInstance) -> None:
    old = launched(instance)
    new = launched(instance)
    found = plan(instance)
    assert [run.run_id for run in found.over] == [old.run_id]
    assert [relaunch.run.run_id for relaunch in found.due] == [new.run_id]
    close(instance, old)
    assert plan(instance).over == ()


def test_a_run_that_is_removed_while_the_plan_is_made_is_no_error(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed, stays = launched(instance, "video/0"), launched(instance, "video/1")
    read = instance.get_run_records

    def reading(*args: Any, **options: Any) -> Any:
        found = read(*args, **options)
        if instance.has_run(removed.run_id):
            instance.delete_run(removed.run_id)
        return found

    monkeypatch.setattr(instance, "get_run_records", reading)
    assert [relaunch.run.run_id for relaunch in plan(instance).due] == [stays.run_id]


@pytest.fixture
def deployment(tmp_path: Path, models_dir: Path) -> Deployment:
    return deployment_for(Settings(home=tmp_path / "home", models=models_dir))


def test_a_retried_run_succeeds_and_tells_of_its_retries(
    deployment: Deployment,
    instance: DagsterInstance,
    clip: Path,
    submit: Submit,
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wrapper, "RETRY_WAITS", (0.0,))
    outage = [True]

    def work(inputs: ComponentInputs) -> Artifact:
        if outage:
            raise TrendFlowError("network_error", "The test says so.")
        return value(1.0)

    add_probe(deployment, work)
    run = submit(deployment, clip)
    budget = RetryBudget(waits_s=(0.0, 0.0, 0.0))
    monkeypatch.setattr("trendflow.orchestration.relaunch.RetryBudget", lambda: budget)
    failed = launched(instance, run.identity.partition_key, "network_error", **{"trendflow/priority": "high"})
    answer = relaunch_due(deployment, instance)
    assert isinstance(answer, SkipReason), "the state of the run does not say yet that it failed"

    assert here(run) == "error"
    retries = ERROR_RULES["network_error"].max_retries
    assert run.manifest()["run"]["retry_count"] == retries, "of the component"
    for _ in range(2):  # a tick whose request was lost is repeated, and recorded once
        answer = relaunch_due(deployment, instance)
        assert isinstance(answer, list)
        (request,) = answer
        assert isinstance(request, RunRequest)
        assert (request.run_key, request.partition_key) == (f"retry-of-{failed.run_id}", run.identity.partition_key)
        assert request.tags[RETRY_TAG] == "1"
        assert request.tags["trendflow/priority"] == "high"
        assert request.tags["dagster/root_run_id"] == failed.run_id
        assert "trendflow/error_code" not in request.tags
    view = deployment.states.read_run(run.run_path)
    assert view is not None
    assert (view.run["status"], view.run["retry_count"]) == ("error", retries + 1)

    outage.clear()
    assert here(run) == "success"
    assert_state_agrees(run)
    view = deployment.states.read_run(run.run_path)
    assert view is not None
    assert view.run["retry_count"] == run.manifest()["run"]["retry_count"] == retries + 1


def failed_of_an_outage(deployment: Deployment, instance: DagsterInstance, submit: Submit, clip: Path) -> RunContext:
    run = submit(deployment, clip)
    assert conclude(deployment, run.run_path, TrendFlowError("storage_unavailable", "The store is away."))
    launched(instance, run.identity.partition_key)
    return run


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = RetryBudget(waits_s=(0.0, 0.0, 0.0))
    monkeypatch.setattr("trendflow.orchestration.relaunch.RetryBudget", lambda: budget)


def test_a_cancelled_run_is_not_launched_again(
    deployment: Deployment, instance: DagsterInstance, clip: Path, submit: Submit, at_once: None
) -> None:
    run = failed_of_an_outage(deployment, instance, submit, clip)
    assert deployment.states.request_cancel(run.run_path)
    assert isinstance(relaunch_due(deployment, instance), SkipReason)
    view = deployment.states.read_run(run.run_path)
    assert view is not None
    assert (view.run["status"], view.run["retry_count"]) == ("cancelled", 0)
    assert plan(instance).due == ()


def test_a_retry_is_recorded_again_for_a_run_that_somebody_executed_in_between(
    deployment: Deployment, instance: DagsterInstance, clip: Path, submit: Submit, at_once: None
) -> None:
    run = failed_of_an_outage(deployment, instance, submit, clip)
    for count in (1, 2):
        for _ in range(2):
            assert isinstance(relaunch_due(deployment, instance), list)
            view = deployment.states.read_run(run.run_path)
            assert view is not None
            assert view.run["retry_count"] == count
        manager = RunManager.open(deployment.states, run.run_path, holder="by-hand")
        assert manager is not None
        manager.begin(worker="by-hand", device=None, resolved_models={})
        manager.fail(TrendFlowError("storage_unavailable", "The store is away."))
        launched(instance, run.identity.partition_key)


def test_a_run_that_another_one_replaces_is_not_launched_again(
    deployment: Deployment, instance: DagsterInstance, clip: Path, submit: Submit, at_once: None
) -> None:
    run = failed_of_an_outage(deployment, instance, submit, clip)
    other = submit(deployment, clip)
    level1 = GlobalManager.open(deployment.states, holder="test")
    level1.run_status(other.run_path, "pending")
    assert isinstance(relaunch_due(deployment, instance), SkipReason)
    view = deployment.states.read_run(run.run_path)
    assert view is not None
    assert (view.run["status"], view.run["retry_count"]) == ("error", 0)
    assert plan(instance).due == ()


def test_a_run_of_another_configuration_replaces_nothing(
    deployment: Deployment, instance: DagsterInstance, clip: Path, submit: Submit, at_once: None
) -> None:
    failed_of_an_outage(deployment, instance, submit, clip)
    other = deployment_for(deployment.settings)
    with_profile(other, lambda components: components.pop("tempo_extractor"))
    run = submit(other, clip)
    level1 = GlobalManager.open(deployment.states, holder="test")
    level1.run_status(run.run_path, "pending")
    assert isinstance(relaunch_due(deployment, instance), list)
