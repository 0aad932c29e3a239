"""A deletion brings the Dagster runs of its video to an end, and is complete only then."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import PARTITION_NAME_TAG

from trendflow.config import Settings
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.partitions import VIDEO_RUNS, add_partitions
from trendflow.orchestration.retention_step import clean_up_deployment, deletion_desk, open_eraser
from trendflow.orchestration.run_history import DagsterHistory
from trendflow.orchestration.run_stop import DagsterExecutions
from trendflow.retention.traces import StillAtWork
from trendflow_tests.orchestration.idle_job import of_a_partition
from trendflow_tests.orchestration.scheduling import SECRET
from trendflow_tests.retention.stored import make_run

VIDEO = ("upload", "my-video")
KEY, OTHER_KEY = "my-video/run-1", "my-video-2/run-1"


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(Settings(home=tmp_path / "home", tombstone_key=SECRET))


def made(instance: DagsterInstance, status: DagsterRunStatus, key: str = KEY) -> str:
    """A run of a partition in this state, executed by nobody."""
    add_partitions(instance, [key])
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("trendflow"), SINGLETON_REPOSITORY_NAME)
    return instance.create_run_for_job(
        of_a_partition,
        tags={PARTITION_NAME_TAG: key},
        status=status,
        remote_job_origin=RemoteJobOrigin(repository, of_a_partition.name),  # a queued run has to have one
    ).run_id


def run_of(instance: DagsterInstance, run_id: str) -> DagsterRun:
    found = instance.get_run_by_id(run_id)
    assert found is not None
    return found


def never(seconds: float) -> None:
    raise AssertionError("there is nothing to wait for")


@pytest.mark.parametrize("status", [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.QUEUED])
def test_what_waits_is_cancelled_at_once(instance: DagsterInstance, status: DagsterRunStatus) -> None:
    mine, other = made(instance, status), made(instance, status, OTHER_KEY)
    assert DagsterExecutions(instance).stop(*VIDEO) == 0
    assert run_of(instance, mine).status == DagsterRunStatus.CANCELED
    assert run_of(instance, other).status == status


def test_a_deletion_cancels_what_waits_and_takes_it_along(deployment: Deployment, instance: DagsterInstance) -> None:
    mine, other = made(instance, DagsterRunStatus.QUEUED), made(instance, DagsterRunStatus.QUEUED, OTHER_KEY)
    open_eraser(deployment, instance, never).erase(*VIDEO)
    assert instance.get_run_by_id(mine) is None
    assert instance.all_logs(mine) == []
    assert instance.get_dynamic_partitions(VIDEO_RUNS) == [OTHER_KEY]
    assert run_of(instance, other).status == DagsterRunStatus.QUEUED


def test_a_deletion_waits_for_what_works(deployment: Deployment, instance: DagsterInstance) -> None:
    make_run(deployment.store, "run-1")
    running = made(instance, DagsterRunStatus.STARTED)
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        assert run_of(instance, running).status == DagsterRunStatus.CANCELING
        assert deployment.results.read_manifest("upload/my-video/run-1") is not None
        assert not list(deployment.store.list("receipts"))
        if len(waited) == 2:
            instance.report_run_canceled(run_of(instance, running))

    receipt = open_eraser(deployment, instance, wait).erase(*VIDEO)
    assert len(waited) == 2
    assert receipt["counts"]["history"] == 2
    assert instance.get_run_by_id(running) is None
    assert instance.get_dynamic_partitions(VIDEO_RUNS) == []
    assert not list(deployment.store.list("result_store"))


def test_what_the_service_was_asked_for_waits_too(deployment: Deployment, instance: DagsterInstance) -> None:
    make_run(deployment.store, "run-1")
    running = made(instance, DagsterRunStatus.STARTED)
    desk = deletion_desk(deployment)
    assert desk is not None
    request_id = desk.request(*VIDEO, by="user-1")
    no_time = clean_up_deployment(deployment, instance, dry_run=False, wait=lambda seconds: None)
    assert no_time.report["deletions"] == 0
    report = desk.report(request_id)
    assert report is not None
    assert report["status"] == "pending"
    assert instance.get_dynamic_partitions(VIDEO_RUNS) == [KEY]
    instance.report_run_canceled(run_of(instance, running))
    assert clean_up_deployment(deployment, instance, dry_run=False, wait=never).report["deletions"] == 1
    report = desk.report(request_id)
    assert report is not None
    assert report["status"] == "complete"
    assert instance.get_dynamic_partitions(VIDEO_RUNS) == []


def test_a_run_in_the_hands_of_a_worker_works_whatever_dagster_thinks(instance: DagsterInstance) -> None:
    ended, held = made(instance, DagsterRunStatus.CANCELED), made(instance, DagsterRunStatus.CANCELED)
    assert DagsterExecutions(instance, lambda: [held, "of another video"]).stop(*VIDEO) == 1
    assert DagsterExecutions(instance, lambda: ["of another video"]).stop(*VIDEO) == 0
    assert {run_of(instance, run).status for run in (ended, held)} == {DagsterRunStatus.CANCELED}


def test_a_run_whose_process_was_killed_does_not_hold_a_deletion_for_ever(instance: DagsterInstance) -> None:
    dead = made(instance, DagsterRunStatus.STARTED)
    limit_s = instance.run_monitoring_cancel_timeout_seconds
    assert DagsterExecutions(instance).stop(*VIDEO) == 1
    later = DagsterExecutions(instance, now=lambda: time.time() + limit_s)
    assert DagsterExecutions(instance, lambda: [dead], now=lambda: time.time() + limit_s).stop(*VIDEO) == 1
    assert run_of(instance, dead).status == DagsterRunStatus.CANCELING
    assert later.stop(*VIDEO) == 0
    assert run_of(instance, dead).status == DagsterRunStatus.CANCELED


def test_the_history_keeps_a_run_that_has_not_ended_and_says_so(instance: DagsterInstance) -> None:
    running = made(instance, DagsterRunStatus.STARTED)
    with pytest.raises(StillAtWork):
        DagsterHistory(instance).forget(*VIDEO)
    assert run_of(instance, running).status == DagsterRunStatus.STARTED
    assert instance.get_dynamic_partitions(VIDEO_RUNS) == [KEY]


def test_a_run_without_its_partition_is_found(instance: DagsterInstance) -> None:
    mine, other = made(instance, DagsterRunStatus.SUCCESS), made(instance, DagsterRunStatus.SUCCESS, OTHER_KEY)
    for key in (KEY, OTHER_KEY):
        instance.delete_dynamic_partition(VIDEO_RUNS, key)
    history = DagsterHistory(instance)
    assert history.count(*VIDEO) == 1
    history.forget(*VIDEO)
    assert (history.count(*VIDEO), instance.get_run_by_id(mine)) == (0, None)
    assert instance.get_run_by_id(other) is not None


def test_ids_that_look_alike_are_not_taken_for_the_video(instance: DagsterInstance) -> None:
    others = [made(instance, DagsterRunStatus.SUCCESS, key) for key in ("myXvideo/run-1", "MY_VIDEO/run-1")]
    mine = made(instance, DagsterRunStatus.SUCCESS, "my_video/run-1")
    history = DagsterHistory(instance)
    assert [run.run_id for run in history.runs("my_video")] == [mine]
    history.forget("upload", "my_video")
    assert [instance.get_run_by_id(run) is not None for run in (mine, *others)] == [False, True, True]
