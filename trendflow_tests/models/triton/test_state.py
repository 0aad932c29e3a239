"""A server found again by its state file, and told from whatever else bears its process id or address."""

from __future__ import annotations

import dataclasses
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trendflow.models.triton import server
from trendflow.models.triton.state import STATE, ServerState, endpoint, read_state, running, write_state
from trendflow.processes import boot_id, started_ticks_of
from trendflow_tests.models.triton.faulty import raised


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that no server command may touch."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("address", ["models.example.org:8001", "10.0.0.7:1", "[::1]:65535"])
def test_a_configured_address_is_taken_as_it_is(tmp_path: Path, address: str) -> None:
    assert endpoint(address, tmp_path) == address


@pytest.mark.parametrize(
    "address", ["", "models", "http://models:8001", "models:http", "models:0", "models:65536", "a b:1", "::1:8001"]
)
def test_an_address_of_another_form_is_refused(tmp_path: Path, address: str) -> None:
    assert raised(endpoint, address, tmp_path).error_code == "config_invalid"


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
