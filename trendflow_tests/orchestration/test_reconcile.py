"""What is repaired after level 1, the state of runs and Dagster went apart: each time, what one of them lost."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from dagster import AssetKey, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.events import DagsterEventType
from dagster._core.launcher import (
    CheckRunHealthResult,
    LaunchRunContext,
    ResumeRunContext,
    RunLauncher,
    WorkerStatus,
)
from dagster._core.run_coordinator import QueuedRunCoordinator

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import Manifest, update_run, upsert_row
from trendflow.orchestration import scheduler
from trendflow.orchestration.acceptance import accept
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.queue.names import ERROR_CODE_TAG, WORKER_TAG
from trendflow.orchestration.run_facts import facts_of_line, facts_of_runs
from trendflow.orchestration.run_state import conclude
from trendflow.orchestration.runs import submit_run
from trendflow.orchestration.settling import settle
from trendflow.orchestration.submission_sensors import RECONCILE_RUNS
from trendflow.state.global_manager import GlobalManager
from trendflow.state.retention import forget_video
from trendflow.state.run_manager import RunManager
from trendflow.storage.run_index import RunIndex
from trendflow.storage.tombstones import tombstone_key
from trendflow.submission.message import Message
from trendflow_tests.orchestration.scheduling import SECRET, Stage, entries

CANCELLED = TrendFlowError("cancelled", "The run was cancelled.")


class Killed(BaseException):
    """The process is gone; nothing catches it."""


def handed_over(stage: Stage, *video_ids: str) -> list[Message]:
    """Runs that Dagster has in its queue, and level 1 knows it."""
    messages = stage.submit(entries(video_ids))
    assert len(stage.take()) == len(video_ids)
    assert stage.take() == []
    return messages


def succeed(manager: RunManager) -> None:
    for name in manager.view.components:
        manager.component_started(name)
        manager.component_finished(name, "empty", [])
    manager.succeed()


def close_manifest(stage: Stage, message: Message) -> None:
    """All components of the run have rows, and it has ended. What the rows say beyond that is of no matter here."""
    rows = [
        {"name": node.name, "kind": node.kind, "status": "ok", "notes": "", "artifacts": [], "warnings": []}
        for node in stage.deployment.graph.enabled("starter")
    ]

    def close(manifest: Manifest) -> Manifest:
        for row in rows:
            manifest = upsert_row(manifest, row)
        return update_run(manifest, finished_at=stage.clock.utc())

    stage.deployment.results.update_manifest(message.run_path, close)


def test_nothing_is_done_where_all_agrees(stage: Stage) -> None:
    (message,) = handed_over(stage, "a-video")
    assert stage.reconcile() == "All agrees."
    stage.begin(message)
    assert stage.reconcile() == "told level 1: 1"
    assert stage.reconcile() == "All agrees."


def test_level_1_follows_a_run_from_worker_to_worker_to_its_end(stage: Stage) -> None:
    (message,) = handed_over(stage, "a-video")
    (run,) = stage.runs()
    stage.instance.add_run_tags(run.run_id, {WORKER_TAG: "cpu-1"})
    stage.begin(message, "cpu-1")
    stage.reconcile()
    assert stage.level1(message) == "running"
    assert stage.workers() == {"cpu-1": [message.run_path]}
    stage.instance.add_run_tags(run.run_id, {WORKER_TAG: "cpu-2"})
    manager = stage.begin(message, "cpu-2")
    stage.reconcile()
    assert stage.workers() == {"cpu-2": [message.run_path]}
    succeed(manager)
    stage.reconcile()
    assert stage.level1(message) == "success"
    assert stage.workers() == {}


def test_a_run_that_was_removed_from_dagster_is_launched_again(stage: Stage) -> None:
    gone, kept = handed_over(stage, "gone", "kept")
    stage.instance.delete_run(stage.runs(gone)[0].run_id)
    stage.instance.delete_dynamic_partition("video_runs", gone.identity.partition_key)
    assert stage.reconcile() == "launched again: 1"
    assert [run.tags["dagster/partition"] for run in stage.take()] == [gone.identity.partition_key]
    assert stage.reconcile() == "All agrees."
    assert (len(stage.runs(gone)), len(stage.runs(kept))) == (1, 1)


def test_a_process_that_dies_before_it_launches_again_is_made_up_for(stage: Stage) -> None:
    (message,) = handed_over(stage, "a-video")
    stage.instance.delete_run(stage.runs()[0].run_id)
    stage.reconcile()
    stage.restart()
    assert stage.take() == []
    stage.reconcile()
    assert len(stage.take()) == 1
    assert stage.level1(message) == "queued"


@pytest.mark.parametrize("code", ["internal_error", "storage_unavailable"])
def test_the_state_of_a_run_that_dagster_saw_fail_is_ended(stage: Stage, code: str) -> None:
    (message,) = handed_over(stage, "a-video")
    stage.begin(message)
    (run,) = stage.runs()
    if code != "internal_error":
        stage.instance.add_run_tags(run.run_id, {ERROR_CODE_TAG: code})
    stage.finish(run)
    assert "ended the state: 1" in stage.reconcile()
    view = stage.state(message)
    assert (view.run["status"], view.run["error_code"], stage.level1(message)) == ("error", code, "error")
    assert stage.reconcile() == "All agrees."


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


def test_level_1_learns_of_an_end_that_it_missed(stage: Stage) -> None:
    (message,) = handed_over(stage, "a-video")
    manager = stage.begin(message)
    succeed(manager)
    stage.finish(stage.runs()[0], DagsterEventType.RUN_SUCCESS)
    stage.restart()
    assert stage.reconcile() == "told level 1: 1"
    assert stage.level1(message) == "success"


@pytest.mark.parametrize("of_dagster", ["process_video", IMPLICIT_ASSET_JOB_NAME])
def test_a_run_that_somebody_launched_in_the_ui_is_known_and_its_death_noticed(stage: Stage, of_dagster: str) -> None:
    deployment = stage.deployment
    run = submit_run(
        deployment,
        locator="/videos/clip.mp4",
        source_type="local_path",
        platform_id="upload",
        video_id="a-video",
        run_id="by-hand",
        profile="starter",
    )
    launched = stage.queue_run(
        run.identity.partition_key, job_name=of_dagster, asset_selection=frozenset({AssetKey("segmenter")})
    )
    other = stage.queue_run(
        "another-video/by-hand", job_name=IMPLICIT_ASSET_JOB_NAME, asset_selection=frozenset({AssetKey("prediction")})
    )
    stage.reconcile()
    known = deployment.states.read_global()["runs"]
    assert {path: row["status"] for path, row in known.items()} == {run.run_path: "queued"}
    manager = RunManager.open(deployment.states, run.run_path, holder="worker-1")
    assert manager is not None
    manager.begin(worker="worker-1", device=None, resolved_models={})
    stage.finish(launched)
    stage.finish(other)
    stage.reconcile()
    view = deployment.states.read_run(run.run_path)
    assert view is not None
    assert (view.run["status"], view.run["error_code"]) == ("error", "internal_error")
    assert deployment.states.read_global()["runs"][run.run_path]["status"] == "error"


def test_a_later_attempt_is_not_ended_by_the_death_of_an_earlier_one(stage: Stage) -> None:
    (message,) = handed_over(stage, "a-video")
    (lost,) = stage.runs()
    stage.begin(message)
    again = stage.queue_run(message.identity.partition_key)
    stage.finish(lost)
    stage.reconcile()
    assert (stage.state(message).run["status"], stage.level1(message)) == ("running", "running")
    stage.finish(again)
    stage.reconcile()
    assert (stage.state(message).run["status"], stage.level1(message)) == ("error", "error")


def test_a_new_attempt_at_a_run_that_ended_shows_in_level_1(stage: Stage) -> None:
    (message,) = handed_over(stage, "a-video")
    stage.begin(message).fail(TrendFlowError("storage_unavailable", "The store did not answer."))
    stage.finish(stage.runs()[0])
    stage.reconcile()
    assert stage.level1(message) == "error"
    stage.queue_run(message.identity.partition_key)
    manager = stage.begin(message)
    stage.reconcile()
    assert stage.level1(message) == "running"
    succeed(manager)
    stage.reconcile()
    assert stage.level1(message) == "success"


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

    def die(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("trendflow.orchestration.reconcile.conclude", die)
        with pytest.raises(Killed):
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


def test_a_run_whose_message_cannot_be_read_any_more_ends_explained(stage: Stage) -> None:
    (message,) = stage.submit(entries(["a-video"]))
    manager = GlobalManager.open(stage.deployment.states, holder="before")
    manager.run_status(message.run_path, "pending", priority="normal", submitted_at=stage.clock.utc())
    stage.deployment.store.delete_prefix("submissions")
    assert "message lost: 1" in stage.reconcile()
    assert stage.level1(message) == "error"


def test_a_success_that_its_worker_could_not_note_is_noted(stage: Stage) -> None:
    (message,) = handed_over(stage, "a-video")
    manager = stage.begin(message)
    close_manifest(stage, message)
    succeed(manager)
    index = RunIndex(stage.deployment.store)
    assert index.latest(message.identity) is None
    assert "noted success: 1" in stage.reconcile()
    found = index.latest(message.identity)
    assert found is not None
    assert found.run_id == message.identity.run_id


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
        submit_run(
            stage.deployment,
            locator="/videos/clip.mp4",
            source_type="local_path",
            platform_id="upload",
            video_id=video_id,
            run_id="by-hand",
            profile="starter",
        )
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


def test_a_mistake_with_one_run_lets_the_looks_go_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = handed_over(stage, "bad", "good")
    for message in (bad, good):
        stage.finish(stage.runs(message)[0])

    def end(deployment: Deployment, instance: DagsterInstance, run: DagsterRun) -> bool | None:
        if run.tags["dagster/partition"] == bad.identity.partition_key:
            raise KeyError(bad.run_path)
        return settle(deployment, instance, run)

    monkeypatch.setattr("trendflow.orchestration.reconcile.settle", end)
    stage.reconcile()
    assert stage.cursor is not None, "or what ended before is looked at each time, for ever"
    assert (stage.level1(bad), stage.level1(good)) == ("queued", "error")
    (said,) = [record for record in caplog.records if "cannot be repaired" in record.message]
    assert any(" end" in place for place in vars(said)["places"]), "where it happened"


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


def test_what_is_wrong_with_one_run_does_not_keep_another_from_being_repaired(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = handed_over(stage, "bad", "good")
    for message in (bad, good):
        stage.finish(stage.runs(message)[0])

    def end(deployment: Deployment, instance: DagsterInstance, run: DagsterRun) -> bool | None:
        if run.tags["dagster/partition"] == bad.identity.partition_key:
            raise TrendFlowError("storage_unavailable", "The store does not answer")
        return settle(deployment, instance, run)

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

    def die(*arguments: object, **more: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(GlobalManager, "run_status", die)
        with pytest.raises(Killed):
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
