"""The server from the wheel: started, ended exactly, and every way in which that can fail."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import urllib.request
from pathlib import Path

import pytest

from trendflow.loopback import choose_ports
from trendflow.models.triton import server
from trendflow.models.triton.environment import ServerEnvironment
from trendflow.models.triton.repository import Repository
from trendflow.models.triton.state import endpoint, read_state, running
from trendflow_tests.models.triton.faulty import backend_processes, raised
from trendflow_tests.triton import Served

pytestmark = pytest.mark.xdist_group("triton")


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


def test_a_server_that_answers_in_place_of_the_started_one_is_not_it(served: Served) -> None:
    server.await_live(served.state)
    other = dataclasses.replace(served.state, memory_prefix="triton-another-")
    error = raised(server.await_live, other, timeout_s=0)
    assert (error.error_code, "did not answer" in error.message) == ("triton_unavailable", True)


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
