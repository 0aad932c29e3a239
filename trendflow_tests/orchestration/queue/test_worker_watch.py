"""What can be seen of a deployment from outside while a real worker executes a real run: metrics and log lines."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.storage.tags import PARTITION_NAME_TAG

from trendflow.config import load_settings
from trendflow.orchestration.deployment import open_deployment
from trendflow.orchestration.partitions import add_partitions
from trendflow.service.assembly import make_parts
from trendflow.service.users import User, Users
from trendflow.state.global_manager import GlobalManager
from trendflow_tests.metrics import Samples, samples_of, total
from trendflow_tests.orchestration.queue.stage import House, Stage, wait_for
from trendflow_tests.orchestration.runs import submit_file, write_graph
from trendflow_tests.ports import held_ports
from trendflow_tests.service.deployment import client, samples, served

pytestmark = pytest.mark.xdist_group("queue")

NAME = "watched"
COMPONENTS = ("segmenter", "loudness_extractor", "tempo_extractor")


@contextmanager
def worker(log: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A worker as the fleet starts it; SIGTERM ends it in good order."""
    command = [sys.executable, "-m", "trendflow.orchestration.queue.worker", "--name", NAME, "--queue", "cpu"]
    with log.open("wb") as sink:
        process = subprocess.Popen([*command, "--metrics-port", str(port)], stdout=sink, stderr=sink)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 0
    finally:
        process.kill()
        process.wait()


def lines_of(log: Path) -> list[dict[str, Any]]:
    """The lines without Celery's farewell, which goes past every log."""
    lines = log.read_text().splitlines()
    return [json.loads(line) for line in lines if line not in ("", "worker: Warm shutdown (MainProcess)")]


def launch(instance: DagsterInstance, partition_key: str) -> str:
    add_partitions(instance, [partition_key])
    job = ReconstructableJob.for_module("trendflow.definitions", "load_job")
    run = instance.create_run_for_job(
        job.get_definition(), job_code_origin=job.get_python_origin(), tags={PARTITION_NAME_TAG: partition_key}
    )
    instance.launch_run(run.run_id, None)  # type: ignore[arg-type]  # the launcher needs no workspace
    return run.run_id


def test_a_run_moves_the_metrics_and_its_lines_say_whose_they_are(
    house: House, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRENDFLOW_GRAPH_FILE", str(write_graph(tmp_path / "graph.yaml", *COMPONENTS)))
    monkeypatch.setenv("TRENDFLOW_LOG_FORMAT", "json")
    monkeypatch.setenv("TRENDFLOW_STORE_URL", (tmp_path / "store").as_uri())
    log = tmp_path / "worker.log"
    deployment = open_deployment(load_settings())
    parts = make_parts(deployment, Users([(hashlib.sha256(b"admin-token").hexdigest(), User("admin", admin=True))]))
    with held_ports(1) as (port,), worker(log, port) as process, served(parts) as address, client(address) as api:

        def of_worker() -> Samples | None:
            assert process.poll() is None, log.read_text()
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60, trust_env=False)
            except httpx.ConnectError:
                return None  # its child imports its code first
            return samples_of(answer.raise_for_status().text)

        idle = wait_for(of_worker, "the metrics of the worker")
        before = samples(api)
        run = submit_file(deployment, clip, run_id="run-1")
        level1 = GlobalManager.open(deployment.states, holder="test")
        level1.run_status(run.run_path, "running", priority="low")
        launched = launch(house.instance, run.identity.partition_key)
        assert Stage(tmp_path, house).ends(launched) == DagsterRunStatus.SUCCESS, log.read_text()
        level1.run_status(run.run_path, "success")
        after = samples(api)
        busy = wait_for(of_worker, "the metrics of the worker")

    who = f"{NAME}@{socket.gethostname()}"
    assert total(idle, "memory_bytes", worker_id=who) > 2**26  # two processes with all libraries in them
    for name in ("host_load1", "host_num_cpus", "host_memory_available_bytes", "host_disk_free_bytes"):
        assert len([sample for sample, _ in busy if sample == name]) == 1
    assert total(busy, "host_cpu_usage_ratio") <= 1
    for op in ("get", "put_if_absent"):
        assert total(busy, "store_request_seconds_count", op=op) > total(idle, "store_request_seconds_count", op=op)
    assert not any(name.startswith(("runs", "active")) for name, _ in busy)  # what nobody counts here is not told

    moved = {name: total(after, name) - total(before, name) for name, _ in after}
    assert (moved["runs_total"], moved["queue_wait_seconds_count"]) == (1, 1)
    assert total(after, "runs_total", status="success") == 1
    for component in COMPONENTS:
        labels = {"component": component, "worker_id": who, "status": "success"}
        assert total(after, "component_stage_seconds_count", **labels) == 1
        assert total(after, "processing_seconds_count", component=component) == 1
        assert total(after, "cache_total", component=component, result="miss") == 1

    found = lines_of(log)
    assert all(line["worker"].startswith(f"{who}:") for line in found)
    ended = {line["component"]: line for line in found if line["message"] == "the component ended"}
    assert set(ended) == set(COMPONENTS)
    identity = {"platform_id": "upload", "video_id": "synthetic-clip", "run_id": "run-1", "outcome": "ok"}
    assert all(line.items() >= identity.items() and line["duration_ms"] >= 0 for line in ended.values())
    assert not any(line["message"] == "message withheld" for line in found)
    assert {"celery.apps.worker", "dagster.run"} <= {line["logger"] for line in found}
