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
from typing import Any

import psutil
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.loopback import choose_ports
from trendflow.models.catalogue import Catalogue
from trendflow.models.store import WeightsStore
from trendflow.models.triton import environment, server
from trendflow.models.triton.environment import ServerEnvironment
from trendflow.models.triton.repository import Repository, write_repository
from trendflow.models.triton.state import STATE, ServerState, endpoint, read_state, running, write_state
from trendflow.processes import boot_id, started_ticks_of
from trendflow_tests.models.builders import place
from trendflow_tests.orchestration.command_line import Cli
from trendflow_tests.orchestration.runs import write_graph
from trendflow_tests.triton import Served, double_entry

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
        assert read_state(folder) == running(folder) == state
        ready = f"http://127.0.0.1:{state.http_port}/v2/models/double/versions/1/ready"
        with urllib.request.urlopen(ready) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"http://127.0.0.1:{state.metrics_port}/metrics") as answer:
            assert b"nv_inference_request_success" in answer.read()
        assert endpoint(None, folder) == state.grpc_url
        assert raised(server.start, folder, triton_environment, repository).error_code == "config_invalid"
        assert state.is_alive, "the second start left the first server alone"
    finally:
        assert server.stop(folder, state)
    assert not state.is_alive
    assert read_state(folder) is None
    assert not server.stop(folder, state)
    assert raised(endpoint, None, folder).error_code == "triton_unavailable"


@pytest.mark.parametrize("address", ["models.example.org:8001", "10.0.0.7:1", "[::1]:65535"])
def test_a_configured_address_is_taken_as_it_is(tmp_path: Path, address: str) -> None:
    assert endpoint(address, tmp_path) == address


@pytest.mark.parametrize(
    "address", ["", "models", "http://models:8001", "models:http", "models:0", "models:65536", "a b:1", "::1:8001"]
)
def test_an_address_of_another_form_is_refused(tmp_path: Path, address: str) -> None:
    assert raised(endpoint, address, tmp_path).error_code == "config_invalid"


def test_a_server_that_answers_in_place_of_the_started_one_is_not_it(served: Served) -> None:
    server.await_live(served.state, timeout_s=0)
    other = dataclasses.replace(served.state, memory_prefix="triton-another-")
    error = raised(server.await_live, other, timeout_s=0)
    assert (error.error_code, "did not answer" in error.message) == ("triton_unavailable", True)


@pytest.fixture
def of_bystander(tmp_path: Path, bystander: subprocess.Popen[bytes]) -> ServerState:
    """The state file of a server that would be the bystander, if nothing but the process id counted."""
    return ServerState(
        pid=bystander.pid,
        started_ticks=started_ticks_of(bystander.pid) or 0,
        host=socket.gethostname(),
        boot=boot_id(),
        http_port=1,
        grpc_port=2,
        metrics_port=3,
        log=str(tmp_path / "server.log"),
        memory_prefix="triton-none-",
        repository="repository",
        repository_digest="digest",
        models=("double",),
    )


@pytest.mark.parametrize("changed", [{"started_ticks": 1}, {"boot": "another start of the kernel"}], ids=str)
def test_only_the_very_process_that_was_started_is_ended(
    tmp_path: Path, bystander: subprocess.Popen[bytes], of_bystander: ServerState, changed: dict[str, Any]
) -> None:
    """The server is gone, and its id belongs to somebody else by now."""
    assert of_bystander.is_alive
    state = dataclasses.replace(of_bystander, **changed)
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state
    assert running(tmp_path) is None
    assert not server.stop(tmp_path, state)
    assert bystander.poll() is None
    assert read_state(tmp_path) is None


def test_a_server_of_another_host_is_left_to_that_host(
    tmp_path: Path, bystander: subprocess.Popen[bytes], of_bystander: ServerState
) -> None:
    state = dataclasses.replace(of_bystander, host="another")
    write_state(tmp_path, state)
    assert running(tmp_path) is None
    error = raised(server.stop, tmp_path, state)
    assert (error.error_code, error.detail["host"]) == ("config_invalid", "another")
    assert bystander.poll() is None
    assert read_state(tmp_path) == state


@pytest.mark.parametrize(
    "changed",
    [
        {"pid": 0},
        {"pid": "many"},
        {"grpc_port": 65536},
        {"models": None},
        {"memory_prefix": ""},  # everything in /dev/shm begins so
        {"memory_prefix": "triton-*"},
        {"memory_prefix": "../tmp/triton-0-"},
    ],
    ids=str,
)
def test_a_state_file_that_no_server_wrote_is_refused(
    tmp_path: Path, of_bystander: ServerState, changed: dict[str, Any]
) -> None:
    (tmp_path / STATE).write_text(json.dumps(dataclasses.asdict(of_bystander) | changed))
    assert raised(read_state, tmp_path).error_code == "config_invalid"
    (tmp_path / STATE).write_text("{")
    assert raised(read_state, tmp_path).error_code == "config_invalid"


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
    assert running(folder) is None, "it takes the kernel some time, but the server answers nobody any more"
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
    assert read_state(tmp_path / "triton") is None


def test_a_server_that_dies_while_starting_leaves_its_last_words(
    tmp_path: Path, triton_environment: ServerEnvironment, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody takes a port between the choice and the start."""
    ports = choose_ports("Triton", dict.fromkeys(("http", "grpc", "metrics")))
    monkeypatch.setattr(server, "choose_ports", lambda owner, wanted: ports)
    with socket.create_server(("127.0.0.1", ports["grpc"])):
        error = raised(server.start, tmp_path / "triton", triton_environment, repository)
    assert error.error_code == "triton_unavailable"
    assert error.detail["exit_code"] == 1
    assert f"127.0.0.1:{ports['grpc']}" in error.detail["log"]
    assert str(tmp_path / "triton") not in error.detail["log"]
    assert read_state(tmp_path / "triton") is None


def test_a_server_that_does_not_answer_is_ended(
    tmp_path: Path, triton_environment: ServerEnvironment, repository: Repository
) -> None:
    error = raised(server.start, tmp_path / "triton", triton_environment, repository, timeout_s=0.0)
    assert error.error_code == "triton_unavailable"
    assert read_state(tmp_path / "triton") is None


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
    state = read_state(found.home / "triton")
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
    state = running(cli.home / "triton")
    assert state is not None

    shown = cli("triton", "status")
    assert shown.returncode == 0
    assert "efficientnet_lite0_224" in shown.stdout
    assert "READY" in shown.stdout
    assert state.grpc_url in shown.stdout

    again = cli("triton", "up")
    assert again.returncode == 0
    assert "runs already" in again.stdout
    assert running(cli.home / "triton") == state

    ended = cli("triton", "down")
    assert ended.returncode == 0
    assert f"server {state.pid} ended" in ended.stdout
    assert not state.is_alive


def test_a_running_server_is_not_replaced_by_what_it_is_not(cli: Cli) -> None:
    """Neither its repository nor its ports change, and one that lost a process of its own is not called running."""
    assert cli("triton", "up").returncode == 0
    config = cli.home / "triton" / "repository" / "efficientnet_lite0_224" / "config.pbtxt"
    written = config.stat()
    state = running(cli.home / "triton")
    assert state is not None

    cli.environment["TRENDFLOW_ONNX_THREADS"] = "2"
    refused = cli("triton", "up")
    assert (refused.returncode, refused.stderr.partition(":")[0]) == (2, "config_invalid")
    assert config.stat() == written
    cli.environment["TRENDFLOW_ONNX_THREADS"] = "1"

    other = next(port for port in (20001, 20002) if port != state.grpc_port)
    refused = cli("triton", "up", "--grpc-port", str(other))
    assert (refused.returncode, "other ports" in refused.stderr) == (2, True)
    (backend,) = backend_processes(cli.home)
    os.kill(backend, signal.SIGKILL)
    for command in ("status", "up"):
        refused = cli("triton", command)
        assert refused.returncode == 75
        assert refused.stderr.startswith("triton_unavailable: ")
        assert "efficientnet_lite0_224" in refused.stderr
    assert cli("triton", "down").returncode == 0


def test_a_server_that_was_killed_is_seen_and_replaced(cli: Cli) -> None:
    assert cli("triton", "up").returncode == 0
    first = running(cli.home / "triton")
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    shown = cli("triton", "status")
    assert shown.returncode == 75
    assert "triton_unavailable: The Triton server ended by itself" in shown.stderr
    assert "Started GRPCInferenceService" in shown.stderr
    assert cli("triton", "up").returncode == 0
    second = running(cli.home / "triton")
    assert second is not None
    assert second.pid != first.pid
    kept = (cli.home / "triton" / "server.log.previous").read_text()
    assert "Started GRPCInferenceService" in kept


def test_a_repository_for_containers_can_be_written(cli: Cli, tmp_path: Path) -> None:
    written = cli("triton", "repository", str(tmp_path / "out"))
    assert written.returncode == 0, written.stderr
    config = (tmp_path / "out" / "efficientnet_lite0_224" / "config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in config
    assert cli("triton", "repository", str(tmp_path / "out")).returncode == 0, "one of its own is replaced"


def test_a_folder_that_holds_something_else_is_not_replaced(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    for target in ("out", "out/thesis.txt"):
        refused = cli("triton", "repository", str(tmp_path / target))
        assert refused.returncode == 2
        assert refused.stderr.startswith("config_invalid: ")
        assert len(refused.stderr.splitlines()) == 1
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_a_place_that_cannot_be_written_is_one_sentence(cli: Cli) -> None:
    cli.home.mkdir()
    (cli.home / "triton").write_text("no folder")
    refused = cli("triton", "up")
    assert refused.returncode == 2
    assert refused.stderr.startswith("config_invalid: The folder of the Triton server cannot be written")
    refused = cli("triton", "repository", "/proc/repository")
    assert (refused.returncode, refused.stderr.partition(":")[0]) == (2, "config_invalid")
    (cli.home / "triton").unlink()


def test_a_profile_without_a_model_to_serve_starts_nothing(cli: Cli, tmp_path: Path) -> None:
    cli.environment["TRENDFLOW_GRAPH_FILE"] = str(write_graph(tmp_path / "none.yaml", "segmenter"))
    refused = cli("triton", "up")
    assert (refused.returncode, refused.stderr.partition(":")[0]) == (2, "config_invalid")
    assert not (cli.home / "triton" / "repository").exists()


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
