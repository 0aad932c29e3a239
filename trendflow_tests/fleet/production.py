"""A fleet that `trendflow up` has started, for tests that disturb it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from benchmarks.production import end_at_once
from trendflow.commands.fleet import status_of
from trendflow.config import load_settings
from trendflow.fleet.environment import fleet_environment, fleet_folder, use_fleet
from trendflow.fleet.state import read_state
from trendflow.fleet.supervisor import read_site
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.queue.board import Board
from trendflow.orchestration.runs import view_run
from trendflow_tests.orchestration.queue.stage import wait_for

PATIENCE_S = 600.0


@dataclass(frozen=True)
class AtWork:
    """What a worker is doing."""

    run_path: str
    component: str
    worker: str


class Production:
    """A fleet that `trendflow up` has started, and what a test asks of it."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self._home, self._environment = home, environment

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """A command of the user, without his patience."""
        return subprocess.Popen(
            [sys.executable, "-m", "trendflow", "--home", str(self._home), *arguments],
            env=os.environ | self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def answer(self, command: subprocess.Popen[str]) -> str:
        said, complained = command.communicate()
        assert command.returncode == 0, complained
        return said

    def connect(self) -> None:
        """Point this process at the fleet."""
        use_fleet(self._home)
        self.deployment = Deployment(load_settings())
        broker = self.deployment.settings.broker_url
        assert broker is not None
        self.board = Board(broker.get_secret_value())

    def conditions(self) -> dict[str, str]:
        return {row["service"]: row["condition"] for row in status_of(self.deployment.settings)["services"]}

    def pid(self, service: str) -> int:
        process = read_state(fleet_folder(self._home)).process(service)
        assert process is not None
        return process.process.pid

    def runs(self) -> list[str]:
        """Paths of all runs that level 1 knows, sorted."""
        return sorted(self.deployment.states.read_global()["runs"])

    def begun(self, run_path: str) -> Counter[str]:
        """How often the work of each component of a run was begun."""
        return Counter(
            event.subject
            for event in self.deployment.states.events(run_path)
            if event.type == "component_status" and event.to == "running"
        )

    def at_work(self, run_paths: Sequence[str]) -> AtWork | None:
        """A component that is being computed, as its journal says."""
        for path in run_paths:
            view = self.deployment.states.read_run(path)
            for name, row in (view.components if view else {}).items():
                if row["status"] == "running" and row["owner"]:
                    return AtWork(path, name, row["owner"])
        return None

    def kill_a_worker_at_work(self) -> AtWork:
        """SIGKILL to a worker and all of its processes while it computes a component."""
        return self.strike_at_work(lambda processes: signal_all(processes, signal.SIGKILL))

    def strike_at_work(self, strike: Callable[[list[psutil.Process]], None], component: str | None = None) -> AtWork:
        """Do something to a worker while it computes a component, any one unless one is named.

        `strike` is given its processes. They are stopped before: what is read then about the run cannot change any
        more until it has struck.
        """

        def hit() -> AtWork | None:
            found = self.at_work(self.runs())
            if found is None or component not in (None, found.component):
                return None
            main = psutil.Process(int(found.worker.split(":")[1]))
            processes = [main, *main.children(recursive=True)]
            signal_all(processes, signal.SIGSTOP)
            view = self.deployment.states.read_run(found.run_path)
            stored = {row["name"] for row in view_run(self.deployment, key_of(found.run_path)).manifest()["components"]}
            at_work = view is not None and view.components[found.component]["status"] == "running"
            if not at_work or found.component in stored:
                signal_all(processes, signal.SIGCONT)
                return None
            strike(processes)
            return found

        return wait_for(hit, "a worker in the middle of a component", PATIENCE_S)


@contextmanager
def running_production(home: Path, environment: Mapping[str, str], workers: int) -> Iterator[Production]:
    """The fleet of a home, to which this process belongs meanwhile. It ends with the block, and at once."""
    folder = fleet_folder(home)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        made = Production(home, dict(environment))
        try:
            made.answer(made.command("up", "--workers", str(workers)))
            for name in fleet_environment(read_site(folder)):
                patch.setenv(name, "")  # remembered, so that what follows is undone
            made.connect()
            yield made
        finally:
            end_at_once(folder)


def signal_all(processes: Sequence[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # some live for a moment only
            process.send_signal(number)


def key_of(run_path: str) -> str:
    return run_path.partition("/")[2]
