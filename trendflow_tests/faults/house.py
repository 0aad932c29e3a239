"""Everything that a run needs in production, as processes of this machine: S3, PostgreSQL, Valkey and a worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.storage.tags import PARTITION_NAME_TAG

from trendflow.config import load_settings
from trendflow.fleet.environment import fleet_environment
from trendflow.fleet.infrastructure import INFRASTRUCTURE
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.jobs import PROCESS_VIDEO
from trendflow.orchestration.partitions import add_partitions
from trendflow.orchestration.queue.board import Board
from trendflow.orchestration.runs import RunContext
from trendflow_tests.faults.servers import Servers, running
from trendflow_tests.orchestration.queue.stage import wait_for
from trendflow_tests.orchestration.runs import AUDIO, submit_file, write_graph
from trendflow_tests.s3_proxy import S3Proxy, proxy_of

REPO = Path(__file__).resolve().parents[2]
SECRET = "a key of a test, long enough"


class House:
    """Servers and one worker, whose way to the store leads through `proxy`; the tests' own way does not."""

    def __init__(self, servers: Servers, proxy: S3Proxy, models: Path, folder: Path) -> None:
        self.servers, self.proxy, self.folder = servers, proxy, folder
        self.log = folder / "worker.log"
        self._opened: tuple[DagsterInstance, Deployment] | None = None
        graph = write_graph(folder / "component_graph.yaml", *sorted(AUDIO))
        self.environment = {
            **fleet_environment(servers.site),
            "TRENDFLOW_MODELS": str(models),
            "TRENDFLOW_GRAPH_FILE": str(graph),
            "TRENDFLOW_ONNX_THREADS": "1",
            "TRENDFLOW_TOMBSTONE_KEY": SECRET,
        }

    @property
    def worker_environment(self) -> dict[str, str]:
        options = json.loads(self.environment["TRENDFLOW_STORE_OPTIONS"])
        shaken = json.dumps({**options, "endpoint": self.proxy.endpoint})
        return {**os.environ, **self.environment, "TRENDFLOW_STORE_OPTIONS": shaken, "PYTHONPATH": str(REPO)}

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A worker as in production; it takes messages inside the block."""
        command = [sys.executable, "-m", "trendflow.orchestration.queue.worker", "--name", "one", "--queue", "cpu"]
        with self.log.open("ab") as sink:
            process = subprocess.Popen(command, cwd=self.folder, env=self.worker_environment, stdout=sink, stderr=sink)

        def ready() -> bool:
            assert process.poll() is None, self.words()
            return " ready." in self.words()

        try:
            wait_for(ready, "the worker")
            yield
        finally:
            process.kill()
            process.wait()

    def words(self) -> str:
        """What the worker has said so far."""
        return self.log.read_text(errors="replace")

    def says(self, words: str, after: int) -> None:
        """Return once the worker has said this, behind the first `after` characters."""
        wait_for(lambda: words in self.words()[after:], words)


class Client:
    """What a test does with a house; the settings of this process must be those of the house."""

    def __init__(self, house: House, instance: DagsterInstance) -> None:
        self.house, self.instance = house, instance
        settings = load_settings()
        self.deployment = Deployment(settings)
        assert settings.broker_url is not None
        self.board = Board(settings.broker_url.get_secret_value())
        self._job = ReconstructableRepository.for_module("trendflow.definitions", "defs").get_reconstructable_job(
            PROCESS_VIDEO
        )

    def submit(self, source: Path, video_id: str | None = None) -> RunContext:
        return submit_file(self.deployment, source, video_id or f"clip-{uuid4()}", run_id=str(uuid4()))

    def launch(self, run: RunContext) -> str:
        """Put the run into the queue, as Dagster's daemon does. Returns the id of the Dagster run."""
        key = run.identity.partition_key
        add_partitions(self.instance, [key])
        made = self.instance.create_run_for_job(
            self._job.get_definition(),
            job_code_origin=self._job.get_python_origin(),
            tags={PARTITION_NAME_TAG: key},
        )
        self.instance.launch_run(made.run_id, None)  # type: ignore[arg-type]  # the launcher needs no workspace
        return made.run_id

    def status(self, run_id: str) -> DagsterRunStatus:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found.status

    def ends(self, run_id: str) -> DagsterRunStatus:
        """How the run ended, once its message is settled too."""
        wait_for(lambda: self.status(run_id).value in ("SUCCESS", "FAILURE", "CANCELED"), f"the end of {run_id}")
        wait_for(lambda: not self.board.is_expected(run_id), f"the release of {run_id}")
        wait_for(lambda: not self.board.unacknowledged(), "the acknowledgement")
        return self.status(run_id)


@contextmanager
def open_house(models: Path, folder: Path) -> Iterator[House]:
    """All servers and a worker, ended with the block."""
    with running(*INFRASTRUCTURE) as servers:
        endpoint = json.loads(fleet_environment(servers.site)["TRENDFLOW_STORE_OPTIONS"])["endpoint"]
        with proxy_of(endpoint) as proxy:
            house = House(servers, proxy, models, folder)
            with house.worker():
                yield house
