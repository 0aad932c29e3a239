"""`trendflow triton`: what the commands say and do.

Commands that start a server which later ones must find, or that have to find one, are processes of their own; those
that refuse are run in this process, which takes a tenth of the time.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trendflow.cli import main
from trendflow.models.catalogue import Catalogue
from trendflow.models.triton import server
from trendflow.models.triton.environment import ServerEnvironment
from trendflow.models.triton.state import read_state, running
from trendflow_tests.models.triton.faulty import backend_processes
from trendflow_tests.orchestration.command_line import Cli
from trendflow_tests.orchestration.runs import write_graph

pytestmark = pytest.mark.xdist_group("triton")

Here = Callable[..., subprocess.CompletedProcess[str]]


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


@pytest.fixture
def here(cli: Cli, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    """The command run in this process, with the same settings as `cli`."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        for name, value in cli.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["trendflow", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), said.out, said.err)

    return run


def test_the_commands_tell_one_story(cli: Cli, here: Here) -> None:
    for command in ("status", "down"):
        refused = here("triton", command)
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

    again = here("triton", "up")
    assert again.returncode == 0
    assert "runs already" in again.stdout
    assert running(cli.home / "triton") == state

    ended = cli("triton", "down")
    assert ended.returncode == 0
    assert f"server {state.pid} ended" in ended.stdout
    assert not state.is_alive


def test_a_running_server_is_not_replaced_by_what_it_is_not(cli: Cli, here: Here) -> None:
    """Neither its repository nor its ports change, and one that lost a process of its own is not called running."""
    assert cli("triton", "up").returncode == 0
    config = cli.home / "triton" / "repository" / "efficientnet_lite0_224" / "config.pbtxt"
    written = config.stat()
    state = running(cli.home / "triton")
    assert state is not None

    cli.environment["TRENDFLOW_ONNX_THREADS"] = "2"
    refused = here("triton", "up")
    assert (refused.returncode, refused.stderr.partition(":")[0]) == (2, "config_invalid")
    assert config.stat() == written
    cli.environment["TRENDFLOW_ONNX_THREADS"] = "1"

    other = next(port for port in (20001, 20002) if port != state.grpc_port)
    refused = here("triton", "up", "--grpc-port", str(other))
    assert (refused.returncode, "other ports" in refused.stderr) == (2, True)
    (backend,) = backend_processes(cli.home)
    os.kill(backend, signal.SIGKILL)
    for command in ("status", "up"):
        refused = here("triton", command)
        assert refused.returncode == 75
        assert refused.stderr.splitlines()[-1].startswith("triton_unavailable: ")
        assert "efficientnet_lite0_224" in refused.stderr
    assert here("triton", "down").returncode == 0


def test_a_server_that_was_killed_is_seen_and_replaced(cli: Cli, here: Here) -> None:
    assert cli("triton", "up").returncode == 0
    first = running(cli.home / "triton")
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    shown = here("triton", "status")
    assert shown.returncode == 75
    assert "triton_unavailable: The Triton server ended by itself" in shown.stderr
    assert "Started GRPCInferenceService" in shown.stderr
    assert here("triton", "up").returncode == 0
    second = running(cli.home / "triton")
    assert second is not None
    assert second.pid != first.pid
    kept = (cli.home / "triton" / "server.log.previous").read_text()
    assert "Started GRPCInferenceService" in kept


def test_a_repository_for_containers_can_be_written(here: Here, tmp_path: Path) -> None:
    written = here("triton", "repository", str(tmp_path / "out"))
    assert written.returncode == 0, written.stderr
    config = (tmp_path / "out" / "efficientnet_lite0_224" / "config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in config
    assert here("triton", "repository", str(tmp_path / "out")).returncode == 0, "one of its own is replaced"


def test_a_folder_that_holds_something_else_is_not_replaced(here: Here, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    for target in ("out", "out/thesis.txt"):
        refused = here("triton", "repository", str(tmp_path / target))
        assert refused.returncode == 2
        assert refused.stderr.startswith("config_invalid: ")
        assert len(refused.stderr.splitlines()) == 1
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_a_place_that_cannot_be_written_is_one_sentence(cli: Cli, here: Here) -> None:
    cli.home.mkdir()
    (cli.home / "triton").write_text("no folder")
    refused = here("triton", "up")
    assert refused.returncode == 2
    assert refused.stderr.startswith("config_invalid: The folder of the Triton server cannot be written")
    refused = here("triton", "repository", "/proc/repository")
    assert (refused.returncode, refused.stderr.partition(":")[0]) == (2, "config_invalid")
    (cli.home / "triton").unlink()


def test_a_profile_without_a_model_to_serve_starts_nothing(cli: Cli, here: Here, tmp_path: Path) -> None:
    cli.environment["TRENDFLOW_GRAPH_FILE"] = str(write_graph(tmp_path / "none.yaml", "segmenter"))
    refused = here("triton", "up")
    assert (refused.returncode, refused.stderr.partition(":")[0]) == (2, "config_invalid")
    assert not (cli.home / "triton" / "repository").exists()


def test_up_refuses_a_taken_port_and_unknown_profiles(here: Here) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = here("triton", "up", "--http-port", str(taken.getsockname()[1]))
    assert refused.returncode == 2
    assert refused.stderr.startswith("config_invalid: Triton cannot use port")
    assert here("triton", "up", "--profile", "nobody").returncode == 2


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
