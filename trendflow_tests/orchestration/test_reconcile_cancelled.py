"""A run that is cancelled at one place is cancelled at every other, and no run is that nobody cancelled."""

from __future__ import annotations

from typing import Any

import pytest
from dagster import DagsterRunStatus
from dagster._core.run_coordinator import QueuedRunCoordinator

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration import scheduler
from trendflow.orchestration.acceptance import accept
from trendflow.orchestration.queue.names import ERROR_CODE_TAG
from trendflow.orchestration.run_facts import facts_of_line
from trendflow.orchestration.run_state import conclude
from trendflow.state.global_manager import GlobalManager
from trendflow_tests.orchestration.scheduling import Stage, entries, handed_over, killed_at

CANCELLED = TrendFlowError("cancelled", "The run was cancelled.")


@pytest.mark.parametrize("wanted", [False, True])
def test_a_run_that_failed_is_cancelled_only_where_somebody_asked_for_it(stage: Stage, wanted: bool) -> None:
    """Whatever its process said at last: one that was replaced ends of a cancellation that nobody asked for."""
    (message,) = handed_over(stage, "a-video")
    stage.begin(message)
    if wanted:
        stage.deployment.states.request_cancel(message.run_path)
    (run,) = stage.runs(message)
    stage.instance.add_run_tags(run.run_id, {ERROR_CODE_TAG: "cancelled"})
    stage.finish(run)
    stage.reconcile()
    found = stage.state(message).run
    assert found["status"] == ("cancelled" if wanted else "error")
    assert found["error_code"] == ("cancelled" if wanted else "internal_error")


def test_a_run_that_is_cancelled_while_it_waits_in_dagster_leaves_its_queue(stage: Stage) -> None:
    cancelled, kept = handed_over(stage, "cancelled", "kept")
    stage.deployment.states.request_cancel(cancelled.run_path)
    assert "cancelled in Dagster: 1" in stage.reconcile()
    assert [run.status for run in stage.runs()] == [DagsterRunStatus.CANCELED, DagsterRunStatus.QUEUED]
    assert (stage.state(cancelled).run["status"], stage.level1(cancelled)) == ("cancelled", "cancelled")
    assert stage.level1(kept) == "queued"
    assert stage.take() == []


def test_a_kill_between_the_two_cancellations_is_made_up_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    (message,) = handed_over(stage, "a-video")
    stage.deployment.states.request_cancel(message.run_path)
    with killed_at(monkeypatch, "trendflow.orchestration.reconcile.conclude"):
        stage.reconcile()
    assert [run.status for run in stage.runs()] == [DagsterRunStatus.CANCELED]
    assert stage.state(message).run["status"] == "pending"
    stage.restart()
    stage.reconcile()
    assert (stage.state(message).run["status"], stage.level1(message)) == ("cancelled", "cancelled")


def test_a_state_that_was_cancelled_takes_its_run_out_of_dagsters_queue_but_not_a_later_one(stage: Stage) -> None:
    (message,) = handed_over(stage, "a-video")
    conclude(stage.deployment, message.run_path, CANCELLED)
    stage.reconcile()
    assert [run.status for run in stage.runs()] == [DagsterRunStatus.CANCELED]
    assert stage.level1(message) == "cancelled"
    stage.clock.seconds = -3600  # the end lies before what follows
    later = handed_over(stage, "later")[0]
    conclude(stage.deployment, later.run_path, CANCELLED)
    stage.reconcile()
    assert stage.runs(later)[0].status == DagsterRunStatus.QUEUED


def test_a_run_that_is_cancelled_in_dagsters_ui_is_cancelled_everywhere(stage: Stage) -> None:
    (message,) = handed_over(stage, "a-video")
    assert isinstance(stage.instance.run_coordinator, QueuedRunCoordinator)
    stage.instance.run_coordinator.cancel_run(stage.runs()[0].run_id)
    stage.reconcile()
    assert (stage.state(message).run["status"], stage.level1(message)) == ("cancelled", "cancelled")


def test_who_cancels_a_run_in_line_need_not_wait_for_its_turn(stage: Stage) -> None:
    first, second = stage.submit(entries(["first", "second"]))
    stage.take()
    third, fourth, *_ = stage.submit(entries(["third", "fourth", "fifth", "sixth"]))
    stage.take()
    (last,) = stage.submit(entries(["last"]))
    stage.take()
    assert stage.level1(last) == "pending"
    accept(stage.deployment, last.identity, "starter", holder="api")
    stage.deployment.states.request_cancel(last.run_path)
    assert "cancelled in line: 1" in stage.reconcile()
    assert (stage.state(last).run["status"], stage.level1(last)) == ("cancelled", "cancelled")
    assert {stage.level1(each) for each in (first, second, third, fourth)} == {"queued"}


def test_a_run_whose_turn_comes_during_a_look_at_the_line_is_left_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    (message,) = stage.submit(entries(["a-video"]))
    manager = GlobalManager.open(stage.deployment.states, holder="before")
    manager.run_status(message.run_path, "pending", priority="normal", submitted_at=stage.clock.utc())
    accept(stage.deployment, message.identity, "starter", holder="api")
    stage.deployment.states.request_cancel(message.run_path)
    shared = scheduler.scheduler_of(stage.deployment)

    def look(*arguments: Any) -> Any:
        with shared.turn() as level1:
            assert level1 is not None, "nobody waits while states are read"
        found = list(facts_of_line(*arguments))
        assert [facts.run_path for facts in found] == [message.run_path]
        shared.expected[message.run_path] = message
        return found

    monkeypatch.setattr("trendflow.orchestration.reconcile.facts_of_line", look)
    stage.reconcile()
    assert stage.state(message).run["status"] == "pending"
