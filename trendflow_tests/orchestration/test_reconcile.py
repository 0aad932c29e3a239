"""What is repaired after level 1, the state of runs and Dagster went apart: each time, what one of them lost."""

from __future__ import annotations

import pytest
from dagster import AssetKey
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.events import DagsterEventType

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import Manifest, update_run, upsert_row
from trendflow.orchestration.queue.names import ERROR_CODE_TAG, WORKER_TAG
from trendflow.state.global_manager import GlobalManager
from trendflow.state.run_manager import RunManager
from trendflow.storage.run_index import RunIndex
from trendflow.submission.message import Message
from trendflow_tests.orchestration.runs import submit_file
from trendflow_tests.orchestration.scheduling import Stage, entries, handed_over, succeed


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
    run = submit_file(deployment, "/videos/clip.mp4", "a-video", run_id="by-hand")
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
