"""A server, or the process in which it executes a model, that dies while a request is under way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from trendflow.models.store import WeightsStore
from trendflow.models.triton import server
from trendflow.models.triton.environment import ServerEnvironment
from trendflow.models.triton.repository import write_repository
from trendflow_tests.models.builders import place
from trendflow_tests.models.triton.faulty import FAULTY, HANGS, backend_processes, code_of, own_names, rows, until
from trendflow_tests.triton import Served, double_entry

pytestmark = pytest.mark.xdist_group("triton")


@pytest.fixture
def own(tmp_path: Path, triton_environment: ServerEnvironment) -> Iterator[Served]:
    """A server for one test, with the model `faulty` alone."""
    entry, data = double_entry("faulty")
    store = tmp_path / "models"
    place(store, entry, data)
    repository = write_repository([entry], WeightsStore(store), tmp_path / "repository")
    (repository.path / "faulty" / "1" / "model.py").write_text(FAULTY)
    state = server.start(tmp_path, triton_environment, repository)
    yield Served(state, tmp_path, store, {"faulty": entry})
    if state.is_alive:  # one whose model is lost would take all the time it has to end
        os.kill(state.pid, signal.SIGKILL)
    server.stop(tmp_path, state)


@pytest.mark.parametrize(("victim", "shared_memory"), [("server", True), ("server", False), ("backend", True)], ids=str)
def test_a_request_whose_server_dies_is_triton_unavailable(own: Served, victim: str, shared_memory: bool) -> None:
    connection, entry = own.connection(shared_memory=shared_memory), own.entries["faulty"]
    session = connection.session()
    assert session.uses_shared_memory is shared_memory
    request = session.send(entry, rows(2, HANGS), {"B": 2})
    until((own.folder / "repository" / "faulty" / "hanging").exists)
    (backend,) = backend_processes(own.folder)
    os.kill(own.state.pid if victim == "server" else backend, signal.SIGKILL)
    assert code_of(lambda: session.result(request)) == "triton_unavailable"
    assert own_names() == []
    # Nor is it taken for a working one afterwards, by a session that is opened anew.
    assert session.is_lost
    assert code_of(lambda: connection.session().prove(entry)) == "triton_unavailable"
    connection.close()
