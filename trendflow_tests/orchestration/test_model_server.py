"""Runs whose models are executed by a Triton server, and what becomes of them when that server goes away."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

from trendflow.config import Settings
from trendflow.contracts.manifest import find_row
from trendflow.models.store import WeightsStore
from trendflow.models.triton import server
from trendflow.models.triton.connection import Session
from trendflow.models.triton.environment import ServerEnvironment
from trendflow.models.triton.repository import Repository, write_repository
from trendflow.models.triton.runtime import TritonHandle
from trendflow.models.triton.state import ServerState, read_state, running
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import RunContext, open_run
from trendflow.orchestration.work import Finished
from trendflow.orchestration.wrapper import persist, run_component
from trendflow_tests.orchestration.runs import problems, submit_file, write_graph

pytestmark = pytest.mark.xdist_group("triton")

ENTRY = "efficientnet_lite0_224"
PATIENCE_S = 300.0


class OwnServer:
    """A server for one test, where the deployment looks for it."""

    def __init__(self, folder: Path, environment: ServerEnvironment, repository: Repository) -> None:
        self.folder, self.environment, self.repository = folder, environment, repository

    def start(self) -> ServerState:
        return server.start(self.folder, self.environment, self.repository)

    def kill(self) -> None:
        state = running(self.folder)
        assert state is not None
        os.kill(state.pid, signal.SIGKILL)

    def end(self) -> None:
        state = read_state(self.folder)
        if state is not None:
            server.stop(self.folder, state)


@pytest.fixture
def deployment(tmp_path: Path, models_dir: Path) -> Deployment:
    """The shipped profiles, reduced to the one model that the server of these tests has."""
    graph = write_graph(tmp_path / "graph.yaml", "segmenter", "core_clip")
    return Deployment(Settings(home=tmp_path / "home", models=models_dir, graph_file=graph, onnx_threads=1))


@pytest.fixture
def own_server(deployment: Deployment, triton_environment: ServerEnvironment) -> Iterator[OwnServer]:
    folder = deployment.settings.triton_dir
    store = WeightsStore(deployment.settings.models_dir)
    repository = write_repository([deployment.catalogue[ENTRY]], store, folder / "repository", threads=1)
    found = OwnServer(folder, triton_environment, repository)
    found.start()
    yield found
    found.end()


class Losing:
    """Kills the server when the component is about to send its n-th batch; the batch itself is really sent."""

    def __init__(self, own_server: OwnServer, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
        self.calls = 0
        real = TritonHandle.infer

        def infer(handle: TritonHandle, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            self.calls += 1
            if self.calls == batch:
                own_server.kill()
            return real(handle, inputs)

        monkeypatch.setattr(TritonHandle, "infer", infer)


def row_of(run: RunContext, component: str) -> dict[str, Any]:
    row = find_row(run.manifest(), component)
    assert row is not None
    return row


def test_a_run_on_a_server_gives_what_a_run_in_process_gives(
    deployment: Deployment, clip: Path, own_server: OwnServer
) -> None:
    rows, arrays, resolved = {}, {}, {}
    for profile in ("starter", "served"):
        run = submit_file(deployment, clip, profile=profile)
        for component in ("segmenter", "core_clip"):
            persist(run, run_component(run, component))
        rows[profile] = row_of(run, "core_clip")
        arrays[profile] = deployment.results.read_artifact(run.run_path, "core_clip").arrays
        resolved[profile] = run.manifest()["run"]["resolved_models"]
        assert problems(deployment, run.run_path) == []
    here, there = rows["starter"], rows["served"]
    assert (here["status"], there["status"]) == ("ok", "ok")
    assert not there["cache_hit"], "another runtime is another key"
    assert here["model_signature"] != there["model_signature"]
    assert [model | {"runtime": "triton"} for model in here["models_used"]] == there["models_used"]
    assert resolved["served"] == {"image_encoder": {**resolved["starter"]["image_encoder"], "runtime": "triton"}}
    assert set(arrays["served"]) == set(arrays["starter"])
    for name, array in arrays["starter"].items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(arrays["served"][name], array, rtol=1e-4, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(arrays["served"][name], array, err_msg=name)


def test_videos_that_are_worked_on_at_the_same_time_share_batches_of_the_server_and_keep_their_results(
    deployment: Deployment, clip: Path, other_clip: Path, own_server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of ours holds units of one video; what waits for the model at the same time is executed as one.

    A third client keeps the model busy with the largest batches there are, so that both videos have to wait. Each has
    one request under way, sent with one of the other, so an execution that is larger than a request and smaller than
    those batches is of both.
    """
    together, send = threading.Barrier(2, timeout=PATIENCE_S), TritonHandle.infer

    def infer(handle: TritonHandle, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        together.wait()
        return send(handle, inputs)

    monkeypatch.setattr(TritonHandle, "infer", infer)
    own = {
        name: submit_file(deployment, path, name, profile="served")
        for name, path in (("one", clip), ("two", other_clip))
    }
    for run in own.values():
        persist(run, run_component(run, "segmenter"))
    entry = deployment.catalogue[ENTRY].on("triton")
    state = running(own_server.folder)
    assert state is not None
    finished: dict[str, Finished] = {}

    def execute(name: str, run: RunContext) -> None:
        finished[name] = run_component(run, "core_clip")

    threads = [threading.Thread(target=execute, args=(name, run)) for name, run in own.items()]
    request = deployment.settings.cpu_batch

    def shared(sizes: set[int]) -> bool:
        return any(request < size < entry.max_batch_size for size in sizes)

    session = Session(state.grpc_url)
    busy = {"images": np.zeros((entry.max_batch_size, 3, 224, 224), np.float32)}
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and not shared(executed_batches(state, ENTRY)):
        session.result(session.send(entry, busy, {"B": entry.max_batch_size}))
    session.close()
    for thread in threads:
        thread.join()
    for name, run in own.items():
        persist(run, finished[name])
    assert {row_of(run, "core_clip")["batching"]["effective_batch_size"] for run in own.values()} == {request}
    assert shared(executed_batches(state, ENTRY))

    for name, path in (("one", clip), ("two", other_clip)):
        alone = submit_file(deployment, path, f"{name}-alone")
        for component in ("segmenter", "core_clip"):
            persist(alone, run_component(alone, component))
        expected = deployment.results.read_artifact(alone.run_path, "core_clip").arrays
        found = deployment.results.read_artifact(own[name].run_path, "core_clip").arrays
        for key, array in expected.items():
            if array.dtype.kind == "f":
                np.testing.assert_allclose(found[key], array, rtol=1e-4, atol=1e-5, err_msg=key)
            else:
                np.testing.assert_array_equal(found[key], array, err_msg=key)


def executed_batches(state: ServerState, model: str) -> set[int]:
    """The sizes of the batches that the server has executed."""
    with InferenceServerClient(state.grpc_url) as client:
        (found,) = client.get_inference_statistics(model).model_stats
        return {batch.batch_size for batch in found.batch_stats}


def test_a_server_that_dies_is_tried_again_and_then_an_error_with_nothing_half_written(
    deployment: Deployment, clip: Path, own_server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submit_file(deployment, clip, profile="served")
    persist(run, run_component(run, "segmenter"))
    losing, waits = Losing(own_server, monkeypatch, batch=2), list[float]()
    persist(run, run_component(run, "core_clip", sleep=waits.append))
    assert losing.calls >= 2, "the server died while the component worked"
    row = row_of(run, "core_clip")
    assert (row["status"], row["error_code"], row["retry_count"]) == ("error", "triton_unavailable", 2)
    assert waits == [1.0, 1.0]
    stored = deployment.results.read_artifact(run.run_path, "core_clip")
    assert dict(stored.arrays) == {}
    assert problems(deployment, run.run_path) == []
    # Of this process alone: others of this machine may have a region that both sides are about to open.
    own = re.compile(rf"trendflow-\d+-{os.getpid()}-")
    assert [name for name in os.listdir("/dev/shm") if own.match(name)] == []

    # The same run goes on when there is a server again, on other ports.
    own_server.start()
    again = open_run(deployment, run.identity.partition_key)
    finished = run_component(again, "core_clip", sleep=waits.append)
    persist(again, finished)
    assert (finished.origin, finished.retry_count) == ("computed", 0)
    assert row_of(again, "core_clip")["status"] == "ok"


def test_a_server_that_comes_back_in_time_costs_one_repetition(
    deployment: Deployment, clip: Path, own_server: OwnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submit_file(deployment, clip, profile="served")
    persist(run, run_component(run, "segmenter"))
    Losing(own_server, monkeypatch, batch=2)
    finished = run_component(run, "core_clip", sleep=lambda seconds: [own_server.start()].clear())
    assert (finished.origin, finished.status, finished.retry_count) == ("computed", "ok", 1)


def test_a_run_does_not_begin_without_its_server(deployment: Deployment, clip: Path) -> None:
    run = submit_file(deployment, clip, profile="served")
    waits = list[float]()
    finished = run_component(run, "segmenter", sleep=waits.append)
    persist(run, finished)
    row = row_of(run, "segmenter")
    assert (row["error_code"], row["retry_count"], waits) == ("triton_unavailable", 2, [1.0, 1.0])
    assert run.manifest()["run"]["frames_dir"] is None


def test_a_server_with_another_model_in_its_place_is_refused_before_the_run(
    deployment: Deployment, clip: Path, own_server: OwnServer
) -> None:
    entry = deployment.catalogue[ENTRY]
    deployment.catalogue.entries[ENTRY] = entry.model_copy(update={"max_batch_size": 16})
    run = submit_file(deployment, clip, profile="served")
    finished = run_component(run, "segmenter", sleep=lambda seconds: None)
    assert finished.meta["error_code"] == "model_spec_invalid"
    assert finished.retry_count == 0
