"""Runs that the queue of the workers lost are put in again, and a long line is looked at in parts."""

from __future__ import annotations

from datetime import timedelta

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.events import DagsterEventType
from dagster._core.launcher import (
    CheckRunHealthResult,
    LaunchRunContext,
    ResumeRunContext,
    RunLauncher,
    WorkerStatus,
)

from trendflow.contracts.errors import TrendFlowError
from trendflow_tests.orchestration.runs import submit_file
from trendflow_tests.orchestration.scheduling import Stage, handed_over


class Queue(RunLauncher[DagsterInstance]):
    """A queue that has lost its data."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[str] = []

    supports_resume_run = True
    supports_check_run_worker_health = True

    def launch_run(self, context: LaunchRunContext) -> None:
        raise NotImplementedError

    def terminate(self, run_id: str) -> bool:
        raise NotImplementedError

    def resume_run(self, context: ResumeRunContext) -> None:
        self.given.append(context.dagster_run.run_id)

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        known = run.run_id in self.given
        return CheckRunHealthResult(WorkerStatus.RUNNING if known else WorkerStatus.NOT_FOUND)


def test_a_run_whose_message_the_queue_has_lost_is_put_in_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    lost, waiting = handed_over(stage, "lost", "waiting")
    (run,) = stage.runs(lost)
    stage.finish(run, DagsterEventType.RUN_STARTING)
    queue = Queue()
    monkeypatch.setattr(DagsterInstance, "run_launcher", queue)
    stage.reconcile()
    assert queue.given == [], "the launch may be going on"
    monkeypatch.setattr("trendflow.orchestration.reconcile._LAUNCHING", timedelta(0))
    assert "put into the queue again: 1" in stage.reconcile()
    assert stage.reconcile() == "All agrees."
    assert queue.given == [run.run_id]
    assert stage.level1(waiting) == "queued"


def test_a_queue_that_does_not_answer_is_asked_once_a_look(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = handed_over(stage, "first", "second", "third")
    for run in stage.runs()[:2]:
        stage.finish(run, DagsterEventType.RUN_STARTING)
    asked: list[str] = []

    def silent(self: Queue, run: DagsterRun) -> CheckRunHealthResult:
        asked.append(run.run_id)
        raise TrendFlowError("storage_unavailable", "The broker of the queue does not answer.")

    monkeypatch.setattr(Queue, "check_run_worker_health", silent)
    monkeypatch.setattr(DagsterInstance, "run_launcher", Queue())
    monkeypatch.setattr("trendflow.orchestration.reconcile._LAUNCHING", timedelta(0))
    stage.begin(messages[2])
    with pytest.raises(TrendFlowError, match="does not answer"):
        stage.reconcile()
    assert len(asked) == 1, "its answer may take seconds to stay out"
    assert stage.level1(messages[2]) == "running", "what does not need it goes on"


def launched_in_the_ui(stage: Stage, *video_ids: str) -> list[DagsterRun]:
    """Runs of a backfill, which level 1 does not know, the oldest first."""
    for video_id in video_ids:
        submit_file(stage.deployment, "/videos/clip.mp4", video_id, run_id="by-hand")
    return [stage.queue_run(f"{video_id}/by-hand") for video_id in video_ids]


def test_the_oldest_run_of_a_long_backfill_is_put_in_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    oldest, *_ = launched_in_the_ui(stage, *(f"video-{number}" for number in range(6)))
    stage.finish(oldest, DagsterEventType.RUN_STARTING)
    queue = Queue()
    monkeypatch.setattr(DagsterInstance, "run_launcher", queue)
    monkeypatch.setattr("trendflow.orchestration.reconcile._LAUNCHING", timedelta(0))
    for limit in ("WAITING", "ENDED"):
        monkeypatch.setattr(f"trendflow.orchestration.run_facts.{limit}", 2)
    assert "put into the queue again: 1" in stage.reconcile()
    assert queue.given == [oldest.run_id]


def test_a_long_queue_is_looked_at_part_by_part_and_from_its_beginning_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trendflow.orchestration.run_facts.WAITING", 2)
    runs = launched_in_the_ui(stage, *(f"video-{number}" for number in range(5)))
    known = stage.deployment.states.read_global()["runs"]
    seen = []
    for _ in range(3):
        stage.reconcile()
        seen.append(len(stage.deployment.states.read_global()["runs"]) - len(known))
    assert seen == [2, 4, 5]
    first = "upload/video-0/by-hand"
    stage.deployment.states.request_cancel(first)
    for _ in range(3):
        stage.reconcile()
    found = stage.instance.get_run_by_id(runs[0].run_id)
    assert found is not None
    assert found.status == DagsterRunStatus.CANCELED
    assert stage.deployment.states.read_global()["runs"][first]["status"] == "cancelled"
