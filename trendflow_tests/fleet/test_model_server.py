"""A fleet whose profile needs a model server: it is started, used, watched and started again with the rest."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import yaml

from trendflow.config import Settings
from trendflow.contracts.errors import ERROR_RULES
from trendflow.contracts.manifest import find_row
from trendflow.fleet.environment import fleet_folder
from trendflow.models.triton import server
from trendflow.models.triton.environment import ServerEnvironment
from trendflow.models.triton.state import read_state
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import run_path_of, view_run
from trendflow.orchestration.wrapper import persist, run_component
from trendflow_tests.fleet.production import PATIENCE_S, Production, key_of, running_production, signal_all
from trendflow_tests.orchestration.conftest import write_clip
from trendflow_tests.orchestration.queue.stage import wait_for
from trendflow_tests.orchestration.runs import problems, submit_file, write_graph

pytestmark = pytest.mark.xdist_group("fleet")

COMPONENTS = ("segmenter", "core_clip")
ROLE = "image_encoder"
CLIPS = ("quiet", "disturbed", "patient")
# Long enough that the server is killed while the Segmenter of a clip is at work.
SECONDS = 20


@pytest.fixture
def clips(tmp_path: Path) -> dict[str, Path]:
    """SYNTHETIC clips by video id."""
    return {name: write_clip(tmp_path / f"{name}.mp4", seed, SECONDS) for seed, name in enumerate(CLIPS)}


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """The shipped profiles, reduced to one model."""
    path = write_graph(tmp_path / "component_graph.yaml", *COMPONENTS)
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    served = document["profiles"]["served"]
    served["models"] = {ROLE: served["models"][ROLE]}
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


@pytest.fixture
def in_process(graph: Path, clips: Mapping[str, Path], models_dir: Path, tmp_path: Path) -> dict[str, Any]:
    """What the model says of the clips in this process, without any server: arrays by video id."""
    alone = Deployment(Settings(home=tmp_path / "alone", models=models_dir, graph_file=graph, onnx_threads=1))
    found = {}
    for name, clip in clips.items():
        run = submit_file(alone, clip, name, profile="starter")
        for component in COMPONENTS:
            persist(run, run_component(run, component))
        found[name] = alone.results.read_artifact(run.run_path, "core_clip").arrays
    return found


@pytest.fixture
def production(
    home: Path, graph: Path, models_dir: Path, in_process: dict[str, Any], triton_environment: ServerEnvironment
) -> Iterator[Production]:
    environment = {
        "TRENDFLOW_GRAPH_FILE": str(graph),
        "TRENDFLOW_MODELS": str(models_dir),
        "TRENDFLOW_PROFILE": "served",
        "TRENDFLOW_TRITON_ENV": str(triton_environment.root),
        "TRENDFLOW_ONNX_THREADS": "1",
        "TRENDFLOW_MIN_FREE_GB": "0",
        "OMP_NUM_THREADS": "1",
    }
    try:
        with running_production(home, environment, workers=1) as running:
            yield running
    finally:
        state = read_state(home / "triton")
        if state is not None:  # its shared memory outlives a server that was killed
            server.stop(home / "triton", state)


def test_runs_are_computed_by_the_model_server_and_go_on_after_its_death(
    production: Production, clips: dict[str, Path], in_process: dict[str, Any], home: Path
) -> None:
    assert production.conditions()["triton"] == "healthy"
    wait_for(lambda: readiness(home)["triton"] is None, "the API to see the server", PATIENCE_S)
    quiet = ended(production, "submit", str(clips["quiet"]))
    assert_served(production, quiet, in_process["quiet"])
    assert losses(production, quiet) == []

    production.answer(production.command("submit", str(clips["disturbed"])))
    keeper, dead = psutil.Process(production.pid("keeper")), production.pid("triton")

    def kill_the_server(worker: list[psutil.Process]) -> None:
        keeper.suspend()  # so that the run is sure to notice
        os.kill(dead, signal.SIGKILL)
        signal_all(worker, signal.SIGCONT)

    hit = production.strike_at_work(kill_the_server, "segmenter").run_path
    try:
        wait_for(lambda: readiness(home)["triton"] == "triton_unavailable", "the API to miss it", PATIENCE_S)
        wait_for(lambda: level1(production, hit) == "error", "the run to give up", PATIENCE_S)
        production.answer(production.command("submit", str(clips["patient"])))
        (patient,) = wait_for(lambda: set(production.runs()) - {quiet, hit}, "the next run", PATIENCE_S)
        log = fleet_folder(home) / "logs" / "worker-1.log"
        wait_for(lambda: "waits: triton_unavailable" in log.read_text(), "the worker to wait", PATIENCE_S)
    finally:
        keeper.resume()
    assert losses(production, hit).count("retry_scheduled") == ERROR_RULES["triton_unavailable"].max_retries
    wait_for(lambda: set(production.conditions().values()) == {"healthy"}, "the repaired fleet", PATIENCE_S)
    assert production.pid("triton") != dead
    assert "ALARM: the service triton had ended" in (fleet_folder(home) / "logs" / "keeper.log").read_text()
    wait_for(lambda: readiness(home)["triton"] is None, "the API to see the new server", PATIENCE_S)

    wait_for(lambda: level1(production, patient) == "success", "the run that waited", PATIENCE_S)
    assert_served(production, patient, in_process["patient"])
    assert losses(production, patient) == []
    again = ended(production, "retry", key_of(hit))
    assert_served(production, again, in_process["disturbed"])
    assert row_of(production, again, "segmenter")["cache_hit"], "what the run had finished is reused"


def ended(production: Production, *command: str) -> str:
    """The path of the run of a command that waits for it; it ended well."""
    (item,) = json.loads(production.answer(production.command(*command, "--wait", "--json")))["items"]
    assert (item["verdict"], item["status"]) == ("done", "success")
    return run_path_of(item["run_key"])


def level1(production: Production, run_path: str) -> str:
    return str(production.deployment.states.read_global()["runs"][run_path]["status"])


def losses(production: Production, run_path: str) -> list[str]:
    """Kinds of the events that tell of a server that was away."""
    events = production.deployment.states.events(run_path)
    return [event.type for event in events if event.data.get("error_code") == "triton_unavailable"]


def readiness(home: Path) -> dict[str, str | None]:
    """Error codes by check, as the API has them."""
    fleet = fleet_folder(home)
    port = json.loads((fleet / "state.json").read_text())["ports"]["api"]["http"]
    headers = {"Authorization": f"Bearer {(fleet / 'api' / 'token').read_text()}"}
    answer = httpx.get(f"http://127.0.0.1:{port}/health", headers=headers, timeout=120, trust_env=False)
    return {line["name"]: line["error_code"] for line in answer.json()["checks"]}


def row_of(production: Production, run_path: str, component: str) -> dict[str, Any]:
    return dict(find_row(view_run(production.deployment, key_of(run_path)).manifest(), component) or {})


def assert_served(production: Production, run_path: str, expected: Mapping[str, np.ndarray]) -> None:
    """The server computed it, and within the precision that every partition into batches has to keep."""
    row = row_of(production, run_path, "core_clip")
    assert (row["status"], row["cache_hit"]) == ("ok", False)
    assert {model["runtime"] for model in row["models_used"]} == {"triton"}
    assert problems(production.deployment, run_path) == []
    found = production.deployment.results.read_artifact(run_path, "core_clip").arrays
    assert set(found) == set(expected)
    for name, array in expected.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], array, err_msg=name)
