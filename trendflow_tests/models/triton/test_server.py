"""The server from the wheel: started, found again, ended exactly, and every way in which that can fail."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import Catalogue
from trendflow.models.store import WeightsStore
from trendflow.models.triton import environment, server
from trendflow.models.triton.environment import ServerEnvironment
from trendflow.models.triton.repository import Repository, write_repository
from trendflow_tests.models.builders import place
from trendflow_tests.orchestration.command_line import Cli
from trendflow_tests.orchestration.runs import write_graph
from trendflow_tests.triton import double_entry

pytestmark = pytest.mark.xdist_group("triton")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    entry, data = double_entry("double")
    place(tmp_path / "models", entry, data)
    return write_repository([entry], WeightsStore(tmp_path / "models"), tmp_path / "repository")


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that no server command may touch."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def raised(work: object, *arguments: object, **named: object) -> TrendFlowError:
    assert callable(work)
    with pytest.raises(TrendFlowError) as error:
        work(*arguments, **named)
    return error.value


def test_a_server_answers_on_loopback_and_is_gone_after_it_was_ended(
    tmp_path: Path, triton_environment: ServerEnvironment, repository: Repository
) -> None:
    folder = tmp_path / "triton"
    state = server.start(folder, triton_environment, repository)
    try:
        assert server.read_state(folder) == server.running(folder) == state
        ready = f"http://127.0.0.1:{state.http_port}/v2/models/double/versions/1/ready"
        with urllib.request.urlopen(ready) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"http://127.0.0.1:{state.metrics_port}/metrics") as answer:
            assert b"nv_inference_request_success" in answer.read()
        assert server.endpoint(None, folder) == state.grpc_url
        assert raised(server.start, folder, triton_environment, repository).error_code == "config_invalid"
        assert state.is_alive, "the second start left the first server alone"
    finally:
        assert server.stop(folder, state)
    assert not state.is_alive
    assert server.read_state(folder) is None
    assert not server.stop(folder, state)
    assert raised(server.endpoint, None, folder).error_code == "triton_unavailable"


def test_a_configured_address_is_taken_as_it_is(tmp_path: Path) -> None:
    assert server.endpoint("models.example.org:8001", tmp_path) == "models.example.org:8001"


def test_only_the_very_process_that_was_started_is_ended(
    tmp_path: Path, bystander: subprocess.Popen[bytes], repository: Repository
) -> None:
    """The server is gone, and its id belongs to somebody else by now."""
    state = server.ServerState(
        pid=bystander.pid,
        started_ticks=1,
        http_port=1,
        grpc_port=2,
        metrics_port=3,
        log=str(tmp_path / "server.log"),
        memory_prefix="triton-none-",
        repository=str(repository.path),
        repository_digest=repository.digest,
        models=repository.models,
    )
    (tmp_path / server.STATE).write_text(json.dumps(dataclasses.asdict(state)))
    assert server.read_state(tmp_path) == state
    assert server.running(tmp_path) is None
    assert not server.stop(tmp_path, state)
    assert bystander.poll() is None
    assert server.read_state(tmp_path) is None


def backend_processes(folder: Path) -> list[int]:
    """Processes whose program lies in the folder of a server."""
    found = []
    for process in psutil.process_iter(["exe"]):
        if (process.info["exe"] or "").startswith(str(folder)) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def test_a_dead_server_leaves_no_process_and_no_memory_once_it_is_cleared_away(
    tmp_path: Path, triton_environment: ServerEnvironment, repository: Repository
) -> None:
    """Killed, and told to end while its models were still loading: both leave processes of their own."""
    folder = tmp_path / "triton"
    state = server.start(folder, triton_environment, repository)
    assert backend_processes(folder)
    assert list(Path("/dev/shm").glob(f"{state.memory_prefix}*"))
    os.kill(state.pid, signal.SIGKILL)
    assert not server.stop(folder, state)
    assert backend_processes(folder) == []
    assert list(Path("/dev/shm").glob(f"{state.memory_prefix}*")) == []

    raised(server.start, folder, triton_environment, repository, timeout_s=0.0)
    assert backend_processes(folder) == []


def test_a_port_that_is_taken_is_named(
    tmp_path: Path, triton_environment: ServerEnvironment, repository: Repository
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = raised(server.start, tmp_path / "triton", triton_environment, repository, {"grpc": port})
    assert error.error_code == "config_invalid"
    assert f"port {port} for grpc" in error.message
    assert server.read_state(tmp_path / "triton") is None


def test_a_server_that_dies_while_starting_leaves_its_last_words(
    tmp_path: Path, triton_environment: ServerEnvironment, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody takes a port between the choice and the start."""
    ports = server._choose_ports({})
    monkeypatch.setattr(server, "_choose_ports", lambda wanted: ports)
    with socket.create_server(("127.0.0.1", ports["grpc"])):
        error = raised(server.start, tmp_path / "triton", triton_environment, repository)
    assert error.error_code == "triton_unavailable"
    assert error.detail["exit_code"] == 1
    assert f"127.0.0.1:{ports['grpc']}" in error.detail["log"]
    assert str(tmp_path / "triton") not in error.detail["log"]
    assert server.read_state(tmp_path / "triton") is None


def test_a_server_that_does_not_answer_is_ended(
    tmp_path: Path, triton_environment: ServerEnvironment, repository: Repository
) -> None:
    error = raised(server.start, tmp_path / "triton", triton_environment, repository, timeout_s=0.0)
    assert error.error_code == "triton_unavailable"
    assert server.read_state(tmp_path / "triton") is None


def test_an_environment_without_a_server_is_refused(tmp_path: Path) -> None:
    assert raised(environment.open_environment, tmp_path / "absent").error_code == "dependency_missing"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "empty")], check=True)
    error = raised(environment.open_environment, tmp_path / "empty")
    assert error.error_code == "dependency_missing"
    assert "requirements-triton.txt" in error.message


def test_packages_that_cannot_be_had_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    error = raised(environment.ensure_environment, tmp_path / "env")
    assert error.error_code == "dependency_missing"
    assert "nvidia-pytriton" in error.detail["output"]
    # What was begun is not taken for an environment: the server is missing from it.
    assert raised(environment.open_environment, tmp_path / "env").error_code == "dependency_missing"


def test_a_python_without_a_backend_is_named(tmp_path: Path, triton_environment: ServerEnvironment) -> None:
    other = dataclasses.replace(triton_environment, version="2.7")
    error = raised(other.install_backends, tmp_path / "backends")
    assert (error.error_code, error.detail["version"]) == ("dependency_missing", "2.7")


def test_nothing_of_this_process_configures_the_interpreter_of_the_server(
    triton_environment: ServerEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    variables = triton_environment.variables()
    assert not {"PYTHONPATH", "AWS_SECRET_ACCESS_KEY"} & set(variables)
    assert variables["PATH"].startswith(str(triton_environment.root / "bin"))


@pytest.fixture
def cli(tmp_path: Path, models_dir: Path, triton_environment: ServerEnvironment) -> Iterator[Cli]:
    graph = write_graph(tmp_path / "graph.yaml", "segmenter", "core_clip")
    found = Cli(
        tmp_path / "home",
        models_dir,
        TRENDFLOW_GRAPH_FILE=str(graph),
        TRENDFLOW_TRITON_ENV=str(triton_environment.root),
    )
    yield found
    state = server.read_state(found.home / "triton")
    if state is not None:
        server.stop(found.home / "triton", state)


def test_the_commands_tell_one_story(cli: Cli) -> None:
    for command in ("status", "down"):
        refused = cli("triton", command)
        assert refused.returncode == 75
        assert refused.stderr == "triton_unavailable: No Triton server was started here.\n"

    started = cli("triton", "up")
    assert started.returncode == 0, started.stderr
    assert "1 models are ready" in started.stdout
    state = server.running(cli.home / "triton")
    assert state is not None

    shown = cli("triton", "status")
    assert shown.returncode == 0
    assert "efficientnet_lite0_224" in shown.stdout
    assert "READY" in shown.stdout
    assert state.grpc_url in shown.stdout

    again = cli("triton", "up")
    assert again.returncode == 0
    assert "runs already" in again.stdout
    assert server.running(cli.home / "triton") == state

    ended = cli("triton", "down")
    assert ended.returncode == 0
    assert f"server {state.pid} ended" in ended.stdout
    assert not state.is_alive


def test_a_server_that_was_killed_is_seen_and_replaced(cli: Cli) -> None:
    assert cli("triton", "up").returncode == 0
    first = server.running(cli.home / "triton")
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    shown = cli("triton", "status")
    assert shown.returncode == 75
    assert "triton_unavailable: The Triton server ended by itself" in shown.stderr
    assert "Started GRPCInferenceService" in shown.stderr
    assert cli("triton", "up").returncode == 0
    second = server.running(cli.home / "triton")
    assert second is not None
    assert second.pid != first.pid


def test_a_repository_for_containers_can_be_written(cli: Cli, tmp_path: Path) -> None:
    written = cli("triton", "repository", str(tmp_path / "out"))
    assert written.returncode == 0, written.stderr
    config = (tmp_path / "out" / "efficientnet_lite0_224" / "config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in config


def test_up_refuses_a_taken_port_and_unknown_profiles(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = cli("triton", "up", "--http-port", str(taken.getsockname()[1]))
    assert refused.returncode == 2
    assert refused.stderr.startswith("config_invalid: Triton cannot use port")
    assert cli("triton", "up", "--profile", "nobody").returncode == 2


def test_a_served_profile_runs_what_the_catalogue_can_serve() -> None:
    from trendflow.components.registry import load_registry
    from trendflow.contracts.graph import load_graph
    from trendflow.contracts.package_data import data_path

    catalogue = Catalogue.load()
    graph = load_graph(data_path("component_graph.yaml"))
    load_registry(graph, catalogue=catalogue)
    profile = graph.profile("served")
    assert dict(profile.models) == dict(graph.profile("starter").models)
    assert {role for role in profile.models if catalogue[profile.models[role]].is_servable} == set(profile.runtimes)
