"""The fixture of tests that play with a real queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from trendflow_tests.orchestration.queue.stage import Broker, Stage
from trendflow_tests.ports import held_ports

_LAUNCHER = "run_launcher: {module: trendflow.orchestration.queue.launcher, class: QueueRunLauncher}\n"


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    home, folder, data = tmp_path / "dagster", tmp_path / "notes", tmp_path / "valkey"
    for path in (home, folder, data):
        path.mkdir()
    (home / "dagster.yaml").write_text(f"telemetry: {{enabled: false}}\n{_LAUNCHER}")
    with ExitStack() as stack, held_ports(1) as ports:
        broker = Broker(data, ports[0])
        broker.start()
        stack.callback(broker.kill)
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        monkeypatch.setenv("TRENDFLOW_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("TRENDFLOW_BROKER_URL", broker.url)
        yield Stage(folder, broker, stack)
