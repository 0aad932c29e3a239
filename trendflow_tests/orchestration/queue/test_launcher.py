"""Launching while the broker is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.launcher import LaunchRunContext, ResumeRunContext, WorkerStatus
from kombu.exceptions import OperationalError

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.queue import launcher
from trendflow.orchestration.queue.board import Board
from trendflow.orchestration.queue.launcher import QueueRunLauncher
from trendflow.orchestration.queue.names import ERROR_CODE_TAG, PRIORITY_TAG
from trendflow_tests.orchestration.queue.stage import Broker
from trendflow_tests.ports import held_ports

pytestmark = pytest.mark.xdist_group("queue")


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """One that does not run yet."""
    monkeypatch.setenv("TRENDFLOW_HOME", str(tmp_path / "home"))
    (tmp_path / "broker").mkdir()
    with held_ports(1) as [port]:
        made = Broker(tmp_path / "broker", port)
        yield made
        made.kill()


@pytest.fixture
def instance() -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral() as instance:
        yield instance


def launching(instance: DagsterInstance, broker: Broker) -> QueueRunLauncher:
    made = QueueRunLauncher(broker.url)
    made.register_instance(instance)
    return made


def test_a_launch_waits_for_a_broker_that_comes_back(
    instance: DagsterInstance, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = instance.add_run(DagsterRun("a_job", run_id="00000000-0000-0000-0000-000000000001"))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            broker.start()

    monkeypatch.setattr(launcher, "sleep", wait)
    launching(instance, broker).launch_run(LaunchRunContext(run, None))
    assert waits
    assert Board(broker.url).is_expected(run.run_id)
    assert sum(Board(broker.url).waiting().values()) == 1


def test_an_outage_holds_launches_up_once_and_fails_none(
    instance: DagsterInstance, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, waits = [1000.0], list[float]()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(launcher, "sleep", wait)
    monkeypatch.setattr(launcher, "monotonic", lambda: clock[0])
    made = launching(instance, broker)
    runs = [instance.add_run(DagsterRun("a_job", status=DagsterRunStatus.STARTING)) for _ in range(3)]
    for run in runs:
        made.launch_run(LaunchRunContext(run, None))
        assert sum(waits) == launcher.PATIENCE_S, "once for all of them"
    with pytest.raises(TrendFlowError) as raised:
        made.resume_run(ResumeRunContext(runs[0], None, None))
    assert raised.value.error_code == "storage_unavailable"
    assert sum(waits) == launcher.PATIENCE_S, "whoever resumes a run comes again"
    for found in instance.get_runs():
        assert (found.status, found.tags.get(ERROR_CODE_TAG)) == (DagsterRunStatus.STARTING, None)
    clock[0] += 3600
    made.launch_run(LaunchRunContext(runs[0], None))
    assert sum(waits) == 2 * launcher.PATIENCE_S, "another outage"
    broker.start()
    for run in runs:
        made.resume_run(ResumeRunContext(run, None, None))
    assert sum(Board(broker.url).waiting().values()) == 3


def test_a_run_that_could_not_be_launched_says_of_what(
    instance: DagsterInstance, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = instance.add_run(DagsterRun("a_job", tags={PRIORITY_TAG: "no priority"}))
    with pytest.raises(TrendFlowError) as raised:
        launching(instance, broker).launch_run(LaunchRunContext(run, None))
    assert raised.value.error_code == "config_invalid"
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.tags[ERROR_CODE_TAG] == "config_invalid"


def test_a_run_that_its_own_process_executes_is_no_lost_one(instance: DagsterInstance, broker: Broker) -> None:
    """As `trendflow process` does: it never was in the queue, and the daemon must not fail it for that."""
    run = instance.add_run(DagsterRun("a_job", run_id="00000000-0000-0000-0000-000000000001"))
    assert launching(instance, broker).check_run_worker_health(run).status == WorkerStatus.RUNNING


def test_a_run_whose_launch_died_before_its_message_was_published_is_lost(
    instance: DagsterInstance, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.start()
    origin = ReconstructableJob.for_module("trendflow_tests.orchestration.queue.jobs", "load").get_python_origin()
    run_id = "00000000-0000-0000-0000-000000000001"
    run = instance.add_run(DagsterRun("a_job", run_id=run_id, job_code_origin=origin))
    asked = launching(instance, broker)
    board = Board(broker.url)
    monkeypatch.setattr(Board, "uptime_s", lambda board: 1.0)
    assert asked.check_run_worker_health(run).status == WorkerStatus.RUNNING, "a new broker has not been told yet"
    monkeypatch.setattr(Board, "uptime_s", lambda board: 86400.0)
    board.expect(run_id)
    assert asked.check_run_worker_health(run).status == WorkerStatus.NOT_FOUND
    asked.resume_run(ResumeRunContext(run, None, None))
    assert asked.check_run_worker_health(run).status == WorkerStatus.RUNNING
    assert sum(board.waiting().values()) == 1


def test_a_run_that_could_not_be_published_is_not_expected(
    instance: DagsterInstance, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.start()
    run = instance.add_run(DagsterRun("a_job", run_id="00000000-0000-0000-0000-000000000001"))

    def refuse(*arguments: object, **options: object) -> None:
        raise OperationalError("The broker is full.")

    monkeypatch.setattr(Celery, "send_task", refuse)
    with pytest.raises(TrendFlowError):
        launching(instance, broker).resume_run(ResumeRunContext(run, None, None))
    assert not Board(broker.url).is_expected(run.run_id)
