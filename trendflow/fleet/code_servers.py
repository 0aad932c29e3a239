"""One server for each of Dagster's code locations, which web server and daemon share.

Each of them would start servers of its own, and the daemon would throw its own away every minute and start them again.

A server is two processes: a proxy, and its child that has the code loaded. *Reload* in the UI makes the proxy put a
new child, with the code as it is then, in the place of the old one. A child that dies it leaves dead.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import yaml
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue

from trendflow.contracts.errors import TrendFlowError
from trendflow.fleet.environment import DEPLOYMENT_KEYS, application_environment
from trendflow.fleet.files import write_atomically
from trendflow.fleet.health import CALL_TIMEOUT_S
from trendflow.fleet.infrastructure import SERVERS
from trendflow.fleet.service import Blueprint, Health, Service, Site
from trendflow.fleet.state import read_state
from trendflow.processes import session_members

LOCATIONS = {"trendflow": "trendflow.definitions", "training": "training.definitions"}
"""The module of each code location."""

# Loading imports everything that the code uses, which takes long on a busy machine.
_START_LIMIT_S = 300.0
# Every sensor and schedule at the same time, and what a person looks at meanwhile. None is started before it is needed.
_THREADS = 16
# How long a child outlives a proxy that was killed and that nobody starts again; far beyond what a proxy on a busy or
# suspended machine is silent, for a child that ends of that is not started again by the proxy.
_ORPHAN_S = 600
_LIST_REPOSITORIES = "/api.DagsterApi/ListRepositories"
# sockaddr_un.sun_path of Linux, without the byte that ends it.
_LONGEST_SOCKET_PATH = 107


def code_server(location: str, module: str, needs: tuple[str, ...] = SERVERS) -> Blueprint:
    """The server of the code location `location`, which is what the Python module `module` defines."""
    name = _service_name(location)
    return Blueprint(
        name=name,
        build=partial(_build, name, location, module),
        shared_secrets=tuple(DEPLOYMENT_KEYS.values()),
        needs=needs,
    )


def _service_name(location: str) -> str:
    return f"code-{location}"


def workspace_file(site: Site) -> Path:
    return site.folder / "workspace.yaml"


def write_workspace(site: Site) -> None:
    """Tell Dagster's programs where the code servers listen. Raises what `write_atomically` does."""
    servers = [
        {"grpc_server": {"location_name": location, "socket": str(_socket(site, _service_name(location)))}}
        for location in LOCATIONS
    ]
    write_atomically(workspace_file(site), yaml.safe_dump({"load_from": servers}).encode())


def dagster_command(site: Site, module: str, *arguments: str) -> tuple[str, ...]:
    """The command of one of Dagster's programs, whose own lines are in the format of ours."""
    log_format = "json" if application_environment(site)["TRENDFLOW_LOG_FORMAT"] == "json" else "colored"
    return sys.executable, "-m", module, *arguments, "--log-format", log_format


def _build(name: str, location: str, module: str, site: Site) -> Service:
    socket = _socket(site, name)
    return Service(
        command=dagster_command(
            *(site, "dagster", "code-server", "start", "--socket", str(socket)),
            *("--module-name", module, "--location-name", location),
            *("--max-workers", str(_THREADS), "--heartbeat-ttl", str(_ORPHAN_S)),
        ),
        # The child is given the number of threads by nothing else.
        environment={**application_environment(site), "DAGSTER_GRPC_MAX_WORKERS": str(_THREADS)},
        folder=site.service_folder(name),
        prepare=lambda: _prepare(socket),
        health=_answers(socket, name, site),
        defect=_defect(socket, name, site),
        start_limit_s=_START_LIMIT_S,
    )


def _socket(site: Site, name: str) -> Path:
    """Not a port: whoever reaches a code server has it execute what he likes, and the folder is this user's alone."""
    own = site.service_folder(name) / "grpc"
    if len(os.fsencode(own)) <= _LONGEST_SOCKET_PATH:
        return own
    # A home may be deeper. The same place for every shell of this user, whatever its TMPDIR.
    return Path("/tmp", f"trendflow-{os.geteuid()}-{sha256(os.fsencode(own)).hexdigest()[:16]}", "grpc")


def _prepare(socket: Path) -> None:
    """Make the folder of the socket. Raises `config_invalid` for one of somebody else, who could answer instead."""
    with suppress(FileExistsError):  # whatever it is
        socket.parent.mkdir(mode=0o700)
    found = socket.parent.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise TrendFlowError("config_invalid", f"The folder {socket.parent} is not this user's alone; remove it.")


def _answers(socket: Path, name: str, site: Site) -> Health:
    """The server answers, and so does its child, which has loaded the code."""

    def check() -> str | None:
        try:
            return _load_error(socket)
        except grpc.RpcError as error:
            return _lost_child(error, name, site) or f"it does not answer ({_status(error).name})"

    return check


def _defect(socket: Path, name: str, site: Site) -> Health:
    def check() -> str | None:
        try:
            return _load_error(socket)
        except grpc.RpcError as error:
            return _lost_child(error, name, site)

    return check


def _lost_child(error: grpc.RpcError, name: str, site: Site) -> str | None:
    """That the child has ended, when it has: it crashed, or the system killed it for its memory."""
    process = read_state(site.folder).process(name)
    # How the proxy says that it passed the question on and nobody answered.
    if process is None or _status(error) is not grpc.StatusCode.UNKNOWN:
        return None
    members = session_members(process.process.pid, process.process.started_ticks)
    return "its process with the code has ended" if len(members) == 1 else None


def _load_error(socket: Path) -> str | None:
    """Why the code could not be loaded, None when it is. Raises `grpc.RpcError`."""
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        # Dagster's own messages are what these are on the wire; importing Dagster for them would take seconds.
        ask = channel.unary_unary(
            _LIST_REPOSITORIES, request_serializer=Empty.SerializeToString, response_deserializer=StringValue.FromString
        )
        found: dict[str, Any] = json.loads(ask(Empty(), timeout=CALL_TIMEOUT_S).value)
    if found["__class__"] != "SerializableErrorInfo":
        return None
    while found["cause"]:
        found = found["cause"]  # what the code itself raised
    lines = [line.strip() for line in found["message"].splitlines() if line.strip()]
    return f"its code cannot be loaded: {lines[-1] if lines else found['cls_name']}"


def _status(error: grpc.RpcError) -> grpc.StatusCode:
    assert isinstance(error, grpc.Call)  # of a call, and not of a channel
    return error.code()


CODE_SERVERS: tuple[Blueprint, ...] = tuple(code_server(*pair) for pair in LOCATIONS.items())
