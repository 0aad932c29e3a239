"""Fixtures of tests that play with a real queue. Its servers and workers serve all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from trendflow_tests.orchestration.queue.stage import Broker, House, Stage, running_broker

_LAUNCHER = "run_launcher: {module: trendflow.orchestration.queue.launcher, class: QueueRunLauncher}\n"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with running_broker(tmp_path_factory.mktemp("valkey")) as started:
        yield started


@pytest.fixture(scope="module")
def house(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    home = folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(f"telemetry: {{enabled: false}}\n{_LAUNCHER}")
    with ExitStack() as stack, pytest.MonkeyPatch.context() as environment:
        environment.setenv("DAGSTER_HOME", str(home))
        environment.setenv("TRENDFLOW_HOME", str(folder / "home"))
        environment.setenv("TRENDFLOW_BROKER_URL", broker.url)
        yield House(folder, broker, stack)


@pytest.fixture
def stage(house: House, tmp_path: Path) -> Stage:
    return Stage(tmp_path, house)
