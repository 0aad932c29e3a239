"""Retention with a real Dagster instance: partitions, histories, the job, the schedule and the commands."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.storage.tags import PARTITION_NAME_TAG

from trendflow.config import Settings, load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.partitions import VIDEO_RUNS, add_partitions
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.retention_job import clean_up_job
from trendflow.orchestration.retention_step import CleanUpHere, clean_up_deployment, deletion_desk, open_eraser
from trendflow.orchestration.run_history import purge, stale_partitions
from trendflow.orchestration.runs import open_run
from trendflow_tests.orchestration.idle_job import of_a_partition
from trendflow_tests.orchestration.runs import submit_file
from trendflow_tests.orchestration.scheduling import SECRET
from trendflow_tests.retention.stored import make_run, now

FILM = "/films/film.mp4"  # which nobody opens


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(Settings(home=tmp_path / "home", tombstone_key=SECRET))


def processed(instance: DagsterInstance, key: str) -> str:
    """A partition with one run that ended; its id."""
    add_partitions(instance, [key])
    return of_a_partition.execute_in_process(instance=instance, tags={PARTITION_NAME_TAG: key}).run_id


def partitions(instance: DagsterInstance) -> list[str]:
    return sorted(instance.get_dynamic_partitions(VIDEO_RUNS))


def test_partitions_without_a_run_in_the_store_go_with_their_events(
    deployment: Deployment, instance: DagsterInstance
) -> None:
    make_run(deployment.store, "stored", ended=now())
    deployment.store.put("state/upload/my-video/waiting/run_request.json", b"{}")
    runs = {name: processed(instance, f"my-video/{name}") for name in ("stored", "waiting", "gone")}
    assert stale_partitions(instance, deployment.store) == ["my-video/gone"]
    assert clean_up_deployment(deployment, instance, dry_run=True).partitions == 1
    assert len(partitions(instance)) == 3
    assert clean_up_deployment(deployment, instance, dry_run=False).partitions == 1
    assert partitions(instance) == ["my-video/stored", "my-video/waiting"]
    assert instance.get_run_by_id(runs["gone"]) is None
    assert instance.all_logs(runs["gone"]) == []
    assert instance.all_logs(runs["stored"])


def test_a_partition_at_work_stays(deployment: Deployment, instance: DagsterInstance) -> None:
    key = "my-video/at-work"
    processed(instance, key)
    running = instance.create_run_for_job(
        of_a_partition, tags={PARTITION_NAME_TAG: key}, status=DagsterRunStatus.STARTED
    )
    assert stale_partitions(instance, deployment.store) == []
    assert not purge(instance, key)
    assert partitions(instance) == [key]
    assert [run.run_id for run in instance.get_runs(RunsFilter(tags={PARTITION_NAME_TAG: key}))] == [running.run_id]


def test_a_deletion_takes_the_history_along(deployment: Deployment, instance: DagsterInstance) -> None:
    make_run(deployment.store, "run-1", ended=now())
    gone, kept = processed(instance, "my-video/run-1"), processed(instance, "my-video-2/run-1")
    receipt = open_eraser(deployment, instance).erase("upload", "my-video")
    assert receipt["counts"]["history"] == 2, "a partition and a run"
    assert partitions(instance) == ["my-video-2/run-1"]
    assert instance.get_run_by_id(gone) is None
    assert instance.get_run_by_id(kept) is not None


def test_without_a_key_nothing_is_deleted_and_ages_count_still(tmp_path: Path, instance: DagsterInstance) -> None:
    deployment = Deployment(Settings(home=tmp_path / "home"))
    with pytest.raises(TrendFlowError, match="TRENDFLOW_TOMBSTONE_KEY"):
        open_eraser(deployment, instance)
    assert deletion_desk(deployment) is None
    assert clean_up_deployment(deployment, instance, dry_run=False).report["deletions"] == 0


def test_the_job_does_what_the_step_does(
    deployment: Deployment, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRENDFLOW_TOMBSTONE_KEY", SECRET)
    processed(instance, "my-video/gone")
    make_run(deployment.store, "run-1", ended=now())
    eraser = open_eraser(deployment, instance)
    eraser.request("upload", "my-video")
    cleaning = clean_up_job()
    resources = {"trendflow": TrendFlowResource(home=str(deployment.settings.home))}
    dry = {"ops": {"remove_what_is_due": {"config": {"dry_run": True}}}}
    assert cleaning.execute_in_process(instance=instance, resources=resources, run_config=dry).success
    assert eraser.pending("upload", "my-video")
    assert partitions(instance) == ["my-video/gone"]
    assert cleaning.execute_in_process(instance=instance, resources=resources).success
    assert not eraser.pending("upload", "my-video")
    assert partitions(instance) == []


def test_a_deleted_video_is_neither_submitted_nor_continued(deployment: Deployment) -> None:
    run = submit_file(deployment, FILM, "my-video", run_id="run-1")
    assert open_run(deployment, run.identity.partition_key).identity == run.identity
    desk = deletion_desk(deployment)
    assert desk is not None
    desk.request("upload", "my-video", by="user-1")
    for attempt in (
        lambda: open_run(deployment, run.identity.partition_key),
        lambda: submit_file(deployment, FILM, "my-video", run_id="run-2"),
    ):
        with pytest.raises(TrendFlowError, match="deleted") as caught:
            attempt()
        assert caught.value.error_code == "input_constraint_violated"
    submit_file(deployment, FILM, "another", run_id="run-1")


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from trendflow.commands.retention import delete, gc, lift

    monkeypatch.setenv("TRENDFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TRENDFLOW_TOMBSTONE_KEY", SECRET)
    (tmp_path / "dagster").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    store = Deployment(Settings()).store
    make_run(store, "run-1", video_id="-my-video", ended=now() - timedelta(days=1))
    assert gc(dry_run=True, as_json=True) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.pop("partitions") == 0
    assert validate_document(SchemaRegistry.load(), "retention_report_v1", report) == []
    assert gc(dry_run=False, as_json=False) == 0
    assert "0 requested deletions" in capsys.readouterr().out
    assert delete("-my-video", "user_request") == 0
    receipt = json.loads(capsys.readouterr().out)
    assert validate_document(SchemaRegistry.load(), "deletion_receipt_v1", receipt) == []
    assert not list(store.list("result_store"))
    assert lift("-my-video") == 0
    assert not list(store.list("tombstones"))
    assert CleanUpHere(Deployment(load_settings())).cleanup(dry_run=True)["dry_run"]
    with pytest.raises(TrendFlowError, match="must be"):
        delete("no video", "user_request")
