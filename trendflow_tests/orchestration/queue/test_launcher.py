"""Launching while the broker is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRun
from dagster._core.launcher import LaunchRunContext, WorkerStatus

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.failures import ERROR_TAG
from trendflow.orchestration.queue import launcher
from trendflow.orchestration.queue.board import Board
from trendflow.orchestration.queue.launcher import QueueRunLauncher
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


def test_a_run_that_could_not_be_launched_says_of_what(
    instance: DagsterInstance, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = instance.add_run(DagsterRun("a_job", run_id="00000000-0000-0000-0000-000000000001"))
    monkeypatch.setattr(launcher, "PATIENCE_S", -1.0)
    with pytest.raises(TrendFlowError) as raised:
        launching(instance, broker).launch_run(LaunchRunContext(run, None))
    assert raised.value.error_code == "storage_unavailable"
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.tags[ERROR_TAG] == "storage_unavailable"


def test_a_run_that_its_own_process_executes_is_no_lost_one(instance: DagsterInstance, broker: Broker) -> None:
    """As `trendflow process` does: it never was in the queue, and the daemon must not fail it for that."""
    run = instance.add_run(DagsterRun("a_job", run_id="00000000-0000-0000-0000-000000000001"))
    assert launching(instance, broker).check_run_worker_health(run).status == WorkerStatus.RUNNING
