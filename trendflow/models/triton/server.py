"""A Triton server on this machine: started on loopback, found again by its state file, ended exactly."""

from __future__ import annotations

import secrets
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError, unwritable
from trendflow.loopback import HOST, choose_ports, listens
from trendflow.models.triton.connection import answering_server
from trendflow.models.triton.environment import ServerEnvironment
from trendflow.models.triton.repository import Repository
from trendflow.models.triton.state import STATE, ServerState, forget, read_state, write_state
from trendflow.processes import boot_id, end_process, end_session, exact_process, started_ticks_of

LOG = "server.log"

_PORTS = ("http", "grpc", "metrics")
_START_TIMEOUT_S = 120.0
_EXIT_TIMEOUT_S = 5
"""How long the server lets running inferences finish when it is told to end."""
_POLL_S = 0.1
_SHARED_MEMORY = Path("/dev/shm")

# A server started by this process is its child and has to be waited for; one found by its state file is not.
_children: dict[int, subprocess.Popen[bytes]] = {}


def start(
    folder: Path,
    environment: ServerEnvironment,
    repository: Repository,
    ports: Mapping[str, int | None] | None = None,
    timeout_s: float = _START_TIMEOUT_S,
) -> ServerState:
    """Start a server on loopback and wait until it answers. Whether its models are ready is another question.

    `ports` fixes some of `http`, `grpc` and `metrics`; the others are free ones. Raises `config_invalid` (a port is
    taken, or a server of this folder runs), `dependency_missing` (no backend for this Python) and `triton_unavailable`
    with the end of the log (the server died or did not answer in time).
    """
    previous = read_state(folder)
    if previous is not None:
        if previous.is_alive:
            raise TrendFlowError("config_invalid", "A Triton server of this folder runs already; end it first.")
        stop(folder, previous)
    chosen = choose_ports("Triton", dict.fromkeys(_PORTS) | dict(ports or {}))
    backends, log = folder / "backends", folder / LOG
    memory_prefix = f"triton-{secrets.token_hex(6)}-"
    environment.install_backends(backends)
    try:
        process = _spawn(_command(environment, repository.path, backends, memory_prefix, chosen), environment, log)
    except OSError as exc:
        raise TrendFlowError(
            "dependency_missing", "The Triton server cannot be executed on this machine.", errno=exc.errno
        ) from exc
    _children[process.pid] = process
    state = ServerState(
        pid=process.pid,
        started_ticks=started_ticks_of(process.pid) or 0,
        host=socket.gethostname(),
        boot=boot_id(),
        http_port=chosen["http"],
        grpc_port=chosen["grpc"],
        metrics_port=chosen["metrics"],
        log=str(log),
        memory_prefix=memory_prefix,
        repository=str(repository.path),
        repository_digest=repository.digest,
        models=repository.models,
    )
    try:
        write_state(folder, state)
        await_live(state, timeout_s)
    except BaseException:
        stop(folder, state)
        raise
    return state


def stop(folder: Path, state: ServerState) -> bool:
    """End exactly this server and forget it; False when it was gone already.

    It gets some seconds to finish what it is doing. Raises `config_invalid` for a server that another host or another
    user started, `timeout` for one that cannot be killed.
    """
    if state.is_elsewhere:
        raise TrendFlowError(
            "config_invalid",
            f"The Triton server of this folder was started on the host {state.host}; end it there, or delete "
            f"{STATE} when that host is gone.",
            host=state.host,
        )
    was_alive = state.is_alive
    try:
        if state.boot == boot_id():
            _end(state)
        for region in _SHARED_MEMORY.glob(f"{state.memory_prefix}*"):
            region.unlink(missing_ok=True)
        forget(folder, state)
    except PermissionError as exc:
        raise TrendFlowError(
            "config_invalid", "The Triton server of this folder belongs to another user of this machine.", pid=state.pid
        ) from exc
    return was_alive


def _end(state: ServerState) -> None:
    with exact_process(state.pid, state.started_ticks) as handle:
        if handle is not None:
            end_process(handle, _EXIT_TIMEOUT_S + 5)
    child = _children.pop(state.pid, None)
    if child is not None:
        child.wait()
    # A server that died, or that was told to end while it loaded, leaves its backend processes and their memory behind.
    end_session(state.pid, state.started_ticks)


def _spawn(command: list[str], environment: ServerEnvironment, log: Path) -> subprocess.Popen[bytes]:
    """Start the server, its words in `log`; the log of the one before is kept. Raises OSError when it cannot run.

    A session of its own: Ctrl-C in the terminal that started it is not meant for the server, and whatever process it
    starts can be told by it.
    """
    try:
        if log.exists():
            log.replace(log.with_name(f"{log.name}.previous"))
        sink = log.open("wb")
    except OSError as exc:
        raise unwritable(exc, "The folder of the Triton server") from exc
    with sink:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env=environment.variables(),
            start_new_session=True,
        )


def _command(
    environment: ServerEnvironment, repository: Path, backends: Path, memory_prefix: str, ports: Mapping[str, int]
) -> list[str]:
    options = {
        "id": memory_prefix.rstrip("-"),
        "model-repository": repository,
        "backend-directory": backends,
        "backend-config": f"python,shm-region-prefix-name={memory_prefix}",
        "exit-on-error": "false",  # a model that does not load is reported with its reason instead of ending the rest
        "exit-timeout-secs": _EXIT_TIMEOUT_S,
        "allow-gpu-metrics": "false",  # they need a library of the driver that the wheel cannot bring
        **{f"{name}-address": HOST for name in _PORTS},
        **{f"{name}-port": ports[name] for name in _PORTS},
    }
    # What is served is what the catalogue says, not what a model file suggests; this flag takes no value.
    flags = ["--disable-auto-complete-config"]
    return [str(environment.server), *flags, *(f"--{name}={value}" for name, value in options.items())]


def await_live(state: ServerState, timeout_s: float = _START_TIMEOUT_S) -> None:
    """Wait until this very server answers. Raises `triton_unavailable` when it dies or takes longer."""
    deadline = time.monotonic() + timeout_s
    while not (
        answering_server(state.grpc_url, timeout_s=1.0) == state.server_id
        and listens(state.http_port)
        and listens(state.metrics_port)
    ):
        if not state.is_alive:
            child = _children.get(state.pid)
            code = None if child is None else child.wait()
            raise TrendFlowError(
                "triton_unavailable",
                "The Triton server ended while it started" + ("." if code is None else f", with code {code}."),
                exit_code=code,
                log=state.log_tail(),
            )
        if time.monotonic() > deadline:
            raise TrendFlowError(
                "triton_unavailable",
                f"The Triton server did not answer within {timeout_s:.0f} seconds.",
                log=state.log_tail(),
            )
        time.sleep(_POLL_S)  # a server tells nobody when it is ready, it has to be asked
