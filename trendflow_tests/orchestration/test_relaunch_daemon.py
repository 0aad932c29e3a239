"""A run that the daemon launches, that fails of a transient code, and that it launches again by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance

from trendflow.config import Settings
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.jobs import PROCESS_VIDEO
from trendflow.orchestration.partitions import VIDEO_RUNS
from trendflow.orchestration.retries import LEFT_TAG
from trendflow_tests.orchestration.command_line import Cli
from trendflow_tests.orchestration.dagster_server import DagsterServer, running_server
from trendflow_tests.orchestration.runs import submit_file, write_graph


@pytest.fixture
def deployment(tmp_path: Path, models_dir: Path) -> Deployment:
    """No component can be as fast as this one has to be."""
    graph = write_graph(tmp_path / "graph.yaml", "segmenter", "loudness_extractor")
    content = yaml.safe_load(graph.read_text(encoding="utf-8"))
    content["components"]["loudness_extractor"]["resources"]["timeout_s"] = 0.001
    graph.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return Deployment(Settings(home=tmp_path / "home", models=models_dir, graph_file=graph))


@pytest.fixture
def server(deployment: Deployment) -> Iterator[DagsterServer]:
    settings = deployment.settings
    cli = Cli(settings.home, settings.models_dir, TRENDFLOW_GRAPH_FILE=str(settings.graph_file))
    with running_server(cli) as running:
        yield running


def test_the_daemon_launches_a_failed_run_again(deployment: Deployment, server: DagsterServer, clip: Path) -> None:
    run = submit_file(deployment, clip, run_id="run-1")
    server.wait(lambda: server.ask("{ assetNodes { id } }")["assetNodes"], 300)
    server.add_partition("trendflow", VIDEO_RUNS, run.identity.partition_key)
    first = server.launch("trendflow", PROCESS_VIDEO, partition=run.identity.partition_key)
    status, tags = server.ended(first)
    assert (status, tags["trendflow/error_code"], tags[LEFT_TAG]) == ("FAILURE", "timeout", "0"), "repeated inside"
    # As after an outage, which would have to be that of the disk here.
    with DagsterInstance.from_config(str(deployment.settings.dagster_home)) as instance:
        instance.add_run_tags(first, {LEFT_TAG: "1"})

    again, *_ = server.wait(lambda: server.ended_runs("dagster/parent_run_id", first), 400)
    retried = again.tags
    assert retried["trendflow/retry"] == "1"
    assert retried["dagster/sensor_name"] == "retry_failed_runs"
    assert retried["dagster/root_run_id"] == first
    assert retried["dagster/partition"] == run.identity.partition_key
    view = deployment.states.read_run(run.run_path)
    assert view is not None
    assert view.run["attempt"] >= 2
    scheduled = [
        event.data["attempt"]
        for event in deployment.states.events(run.run_path)
        if event.type == "retry_scheduled" and event.level == 2
    ]
    assert scheduled == [1]
    assert run.manifest()["run"]["retry_count"] == 5, "twice two of the component, one of the run"
    assert retried[LEFT_TAG] == "0"
