"""Looks at the runs in which something breaks or is changed by somebody else: the next ones make up for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRun

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration import scheduler
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.run_facts import facts_of_runs
from trendflow.orchestration.settling import settle
from trendflow.orchestration.submission_sensors import RECONCILE_RUNS
from trendflow.state.retention import forget_video
from trendflow.storage.tombstones import tombstone_key
from trendflow.submission.message import Message
from trendflow_tests.orchestration.scheduling import SECRET, Stage, handed_over, killed_at, succeed


@pytest.mark.parametrize("known", [True, False])
def test_a_video_that_is_erased_during_a_look_does_not_come_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    (message,) = handed_over(stage, "a-video")
    stage.begin(message)
    states = stage.deployment.states
    if not known:
        forget_video(states, "upload", "a-video", holder="test")
        stage.restart()
    looks: list[int] = []

    def erase(*arguments: Any) -> Any:
        found = list(facts_of_runs(*arguments))
        looks.append(len(found))
        stage.deployment.store.put(tombstone_key("upload", "a-video", SECRET.encode()), b"{}")
        forget_video(states, "upload", "a-video", holder="test")
        scheduler.scheduler_of(stage.deployment)._level1 = None  # as after the fence that this is
        return found

    monkeypatch.setattr("trendflow.orchestration.reconcile.facts_of_runs", erase)
    stage.reconcile()
    assert looks == [1]
    assert "a-video" not in str(states.read_global())
    assert not any(
        "a-video" in str(stage.deployment.store.get(i.key)) for i in stage.deployment.store.list("state/_global")
    )


def settling_but(bad: Message, error: Exception) -> Callable[[Deployment, DagsterInstance, DagsterRun], bool | None]:
    """Ends the states of all runs but one."""

    def end(deployment: Deployment, instance: DagsterInstance, run: DagsterRun) -> bool | None:
        if run.tags["dagster/partition"] == bad.identity.partition_key:
            raise error
        return settle(deployment, instance, run)

    return end


def test_a_mistake_with_one_run_lets_the_looks_go_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = handed_over(stage, "bad", "good")
    for message in (bad, good):
        stage.finish(stage.runs(message)[0])
    end = settling_but(bad, KeyError(bad.run_path))

    monkeypatch.setattr("trendflow.orchestration.reconcile.settle", end)
    stage.reconcile()
    assert stage.cursor is not None, "or what ended before is looked at each time, for ever"
    assert (stage.level1(bad), stage.level1(good)) == ("queued", "error")
    (said,) = [record for record in caplog.records if "cannot be repaired" in record.message]
    assert any(" end" in place for place in vars(said)["places"]), "where it happened"


def test_what_is_wrong_with_one_run_does_not_keep_another_from_being_repaired(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = handed_over(stage, "bad", "good")
    for message in (bad, good):
        stage.finish(stage.runs(message)[0])
    end = settling_but(bad, TrendFlowError("storage_unavailable", "The store does not answer"))

    with monkeypatch.context() as patch:
        patch.setattr("trendflow.orchestration.reconcile.settle", end)
        with pytest.raises(TrendFlowError, match="does not answer"):
            stage.reconcile()
    assert (stage.level1(bad), stage.level1(good)) == ("queued", "error")
    stage.reconcile()
    assert stage.level1(bad) == "error"


def test_a_kill_before_level_1_is_told_is_made_up_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    (message,) = handed_over(stage, "a-video")
    succeed(stage.begin(message))
    with killed_at(monkeypatch, "trendflow.state.global_manager.GlobalManager.run_status"):
        stage.reconcile()
    stage.restart()
    stage.reconcile()
    assert stage.level1(message) == "success"


def test_a_look_that_another_tick_holds_up_is_repeated_from_where_it_was(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.reconcile()
    monkeypatch.setattr(scheduler, "TURN_WAIT_SEC", 0.0)
    with scheduler.scheduler_of(stage.deployment).turn():
        held_up = stage.sensor(RECONCILE_RUNS)
    assert "Another tick" in str(held_up.skip_message)
    assert held_up.cursor == stage.cursor
