"""`trendflow ui` as a user starts it, and what its pages ask it to do, through GraphQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from trendflow_tests.orchestration.command_line import Cli
from trendflow_tests.ports import held_ports

ENDED = ("SUCCESS", "FAILURE", "CANCELED")
NODES = "{ assetNodes { isPartitioned assetKey { path } dependencyKeys { path } } }"
_REPOSITORY = "__repository__"
_LAUNCH = """
mutation($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on PythonError { message }
  }
}"""
_ADD_PARTITION = """
mutation($key: String!, $definition: String!, $repository: RepositorySelector!) {
  addDynamicPartition(partitionKey: $key, partitionsDefName: $definition, repositorySelector: $repository) {
    __typename
  }
}"""
_BACKFILL = """
mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
_RUNS = """
query($tag: String!, $value: String!) {
  runsOrError(filter: {tags: [{key: $tag, value: $value}]}) {
    ... on Runs { results { runId status tags { key value } } }
  }
}"""
_RUN = "query($run: ID!) { runOrError(runId: $run) { ... on Run { status tags { key value } } } }"


@dataclass(frozen=True)
class EndedRun:
    """A run that ended."""

    run_id: str
    status: str
    tags: dict[str, str]


class DagsterServer:
    """`trendflow ui` as a user starts it: web server and daemon, on a free loopback port."""

    def __init__(self, cli: Cli, port: int) -> None:
        self.cli = cli
        self.url = f"http://127.0.0.1:{port}"
        self.log = (cli.home.parent / "ui.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trendflow", "ui", "--port", str(port)],
            cwd=cli.home.parent,
            env=cli.environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ask(self, query: str, **variables: Any) -> Any:
        answer = httpx.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=120)
        answer.raise_for_status()
        body = answer.json()
        assert "errors" not in body, body["errors"]
        return body["data"]

    def launch(
        self, location: str, job: str, config: Mapping[str, Any] | None = None, partition: str | None = None
    ) -> str:
        """Launch a job as its launchpad does. Returns the id of the run."""
        tags = [] if partition is None else [{"key": "dagster/partition", "value": partition}]
        selector = {"repositoryLocationName": location, "repositoryName": _REPOSITORY, "jobName": job}
        ops = {name: {"config": values} for name, values in (config or {}).items()}
        params = {"selector": selector, "runConfigData": {"ops": ops}, "executionMetadata": {"tags": tags}}
        launched = self.ask(_LAUNCH, params=params)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def backfill(self, assets: Sequence[Mapping[str, Any]], partitions: Collection[str]) -> dict[str, EndedRun]:
        """Launch a backfill as the page of the assets does. Returns its runs by partition, once all of them ended."""
        params = {"partitionNames": [*partitions], "assetSelection": [*assets], "tags": []}
        launched = self.ask(_BACKFILL, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched

        def ended() -> dict[str, EndedRun] | None:
            runs = self.ended_runs("dagster/backfill", launched["backfillId"])
            found = {run.tags["dagster/partition"]: run for run in runs}
            return found if found.keys() >= set(partitions) else None

        return dict(self.wait(ended, 480))

    def ended_runs(self, tag: str, value: str) -> list[EndedRun]:
        """The runs with this tag that ended so far."""
        found = self.ask(_RUNS, tag=tag, value=value)["runsOrError"]["results"]
        return [
            EndedRun(run["runId"], run["status"], {tag["key"]: tag["value"] for tag in run["tags"]})
            for run in found
            if run["status"] in ENDED
        ]

    def add_partition(self, location: str, definition: str, key: str) -> None:
        repository = {"repositoryLocationName": location, "repositoryName": _REPOSITORY}
        added = self.ask(_ADD_PARTITION, key=key, definition=definition, repository=repository)
        assert added["addDynamicPartition"]["__typename"] == "AddDynamicPartitionSuccess", added

    def ended(self, run_id: str, limit: float = 480.0) -> tuple[str, dict[str, str]]:
        """Status and tags of a run, once it ended."""

        def run() -> dict[str, Any] | None:
            found: dict[str, Any] = self.ask(_RUN, run=run_id)["runOrError"]
            return found if found["status"] in ENDED else None

        found = self.wait(run, limit)
        return found["status"], {tag["key"]: tag["value"] for tag in found["tags"]}

    def wait(self, question: Callable[[], Any], limit: float) -> Any:
        """The first truthy answer. Fails when the server dies or the time is up."""
        pause = threading.Event()
        end = time.monotonic() + limit
        while time.monotonic() < end:
            assert self.process.poll() is None, Path(self.log.name).read_text()[-3000:]
            try:
                found = question()
            except httpx.HTTPError:
                found = None
            if found:
                return found
            pause.wait(0.5)
        raise AssertionError(Path(self.log.name).read_text()[-3000:])

    def stop(self) -> None:
        with suppress(ProcessLookupError):  # it may have died by itself
            os.killpg(self.process.pid, signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        self.log.close()


@contextmanager
def running_server(cli: Cli) -> Iterator[DagsterServer]:
    """The server of a deployment, on a port of its own."""
    with held_ports(1) as [port]:
        server = DagsterServer(cli, port)
        try:
            yield server
        finally:
            server.stop()
