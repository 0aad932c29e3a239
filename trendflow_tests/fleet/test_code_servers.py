"""Code servers as the fleet starts them, with a small code location: changed, broken and killed."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import ListRepositoriesResponse
from dagster._serdes import deserialize_value

from trendflow.contracts.errors import TrendFlowError
from trendflow.fleet.applications import DAEMON, WEBSERVER
from trendflow.fleet.code_servers import CODE_SERVERS, LOCATIONS, code_server, workspace_file, write_workspace
from trendflow.fleet.files import make_folder
from trendflow.fleet.keeper import Keeper
from trendflow.fleet.service import Site
from trendflow.fleet.state import read_state
from trendflow.fleet.status import fleet_status
from trendflow.fleet.supervisor import Fleet
from trendflow.processes import session_members

MakeFleet = Callable[..., Fleet]

CODE = """
import dagster

@dagster.repository
def {repository}():
    return []
"""
NAME = "code-tiny"
_POLL_S = 0.1


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a module that services can import; it defines the repository `first`."""
    for name in [name for name in os.environ if name.startswith("TRENDFLOW_") or name == "DAGSTER_HOME"]:
        monkeypatch.delenv(name)
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # the file may change within a second
    file = folder / "tiny_location.py"
    file.write_text(CODE.format(repository="first"))
    return file


@pytest.fixture
def served(fleet: MakeFleet, module: Path) -> Fleet:
    """A fleet of one code server, which is up."""
    built = fleet(code_server("tiny", module.stem, needs=()))
    built.up()
    return built


def client(built: Fleet) -> DagsterGrpcClient:
    return DagsterGrpcClient(socket=str(built.folder / NAME / "grpc"))


def repositories(built: Fleet) -> list[str]:
    found = deserialize_value(client(built).list_repositories(), ListRepositoriesResponse)
    return [symbol.repository_name for symbol in found.repository_symbols]


def proxy_and_child(built: Fleet) -> tuple[psutil.Process, psutil.Process]:
    process = read_state(built.folder).process(NAME)
    assert process is not None
    proxy = psutil.Process(process.process.pid)
    wait_until(lambda: len(proxy.children()) == 1)  # one that was replaced ends a moment later
    return proxy, proxy.children()[0]


def reason(built: Fleet) -> str | None:
    (row,) = fleet_status(built.folder, built.blueprints)["services"]
    return None if row["condition"] == "healthy" else str(row["reason"])


def wait_until(done: Callable[[], bool]) -> None:
    """However long it takes; what hangs is ended by pytest's own limit."""
    while not done():
        time.sleep(_POLL_S)  # leaves the cores to what is waited for


def keep_until_healthy(built: Fleet) -> None:
    """A keeper looks after the fleet until nothing is wrong, however long that takes."""
    keeper = Keeper(built.folder, lambda: built, time.monotonic)

    def is_mended() -> bool:
        keeper.look()
        return reason(built) is None

    wait_until(is_mended)


def test_the_code_is_served_to_this_user_alone_and_taken_up_anew_when_asked(served: Fleet, module: Path) -> None:
    assert repositories(served) == ["first"]
    assert read_state(served.folder).ports[NAME] == {}
    assert stat.S_IMODE((served.folder / NAME).stat().st_mode) == 0o700
    module.write_text(CODE.format(repository="second"))
    assert repositories(served) == ["first"]
    client(served).reload_code(timeout=600)
    assert repositories(served) == ["second"]
    served.up()
    proxy, child = proxy_and_child(served)
    assert served.down() == 1
    wait_until(lambda: not proxy.is_running() and not child.is_running())


def test_code_that_cannot_be_loaded_is_told_in_its_own_words(served: Fleet, module: Path) -> None:
    good = module.read_text()
    module.write_text(good + "raise RuntimeError('no such table')\n")
    client(served).reload_code(timeout=600)
    assert reason(served) == "its code cannot be loaded: RuntimeError: no such table"
    with pytest.raises(TrendFlowError) as caught:
        served.up()  # long before its time is over
    assert caught.value.message == (
        "The service 'code-tiny' does not work: its code cannot be loaded: RuntimeError: no such table."
    )
    module.write_text(good)
    served.up()
    assert (reason(served), repositories(served)) == (None, ["first"])


def test_a_killed_child_is_seen_and_replaced(served: Fleet) -> None:
    proxy, child = proxy_and_child(served)
    child.kill()
    wait_until(lambda: reason(served) == "its process with the code has ended")
    keep_until_healthy(served)
    assert not proxy.is_running()
    assert repositories(served) == ["first"]
    assert proxy_and_child(served)[1] != child


def test_a_killed_proxy_is_replaced_and_its_child_ended(served: Fleet) -> None:
    proxy, child = proxy_and_child(served)
    process = read_state(served.folder).process(NAME)
    assert process is not None
    os.kill(proxy.pid, signal.SIGKILL)
    wait_until(lambda: not read_state(served.folder).processes[0].is_alive)
    assert session_members(process.process.pid, process.process.started_ticks) != []  # the child lives on
    keep_until_healthy(served)
    assert not child.is_running()
    assert repositories(served) == ["first"]


def test_a_home_may_be_deeper_than_the_path_of_a_socket_is_long(home: Path) -> None:
    server = code_server("tiny", "tiny_location", needs=())
    longest = 107 - len(str(home / "code-tiny" / "grpc")) - 1

    def socket_of(length: int) -> Path:
        command = server.build(Site(home / ("x" * length), {}, {})).command
        return Path(command[command.index("--socket") + 1])

    assert socket_of(longest) == home / ("x" * longest) / "code-tiny" / "grpc"
    folder = socket_of(longest + 1).parent
    assert len(str(folder)) < 60
    assert socket_of(longest + 2).parent != folder
    prepare = server.build(Site(home / ("x" * (longest + 1)), {}, {})).prepare
    assert prepare is not None
    try:
        prepare()
        prepare()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        folder.chmod(0o750)
        with pytest.raises(TrendFlowError, match="not this user's alone"):
            prepare()
    finally:
        folder.rmdir()


def test_the_fleet_serves_what_the_workspace_of_one_process_loads(home: Path, repo_root: Path) -> None:
    site = Site(home / "fleet", {"webserver": {"http": 1}}, {})
    make_folder(site.folder)
    write_workspace(site)
    path = str(workspace_file(site))
    found = WorkspaceFileTarget([path]).create_origins()
    sockets = {
        origin.location_name: origin.socket for origin in found if isinstance(origin, GrpcServerCodeLocationOrigin)
    }
    assert len(sockets) == len(found)
    loaded = [
        entry["python_module"] for entry in yaml.safe_load((repo_root / "workspace.yaml").read_text())["load_from"]
    ]
    assert {entry["location_name"]: entry["module_name"] for entry in loaded} == LOCATIONS
    assert sockets.keys() == LOCATIONS.keys()
    for blueprint in CODE_SERVERS:
        command = blueprint.build(site).command
        location = command[command.index("--location-name") + 1]
        assert command[command.index("--socket") + 1] == sockets[location]
        assert command[command.index("--module-name") + 1] == LOCATIONS[location]
    for program in (WEBSERVER, DAEMON):
        command = program.build(site).command
        assert command[command.index("-w") + 1] == path
        assert {blueprint.name for blueprint in CODE_SERVERS} <= set(program.needs)
