"""A Triton server on this machine: started on loopback, found again by its state file, ended exactly."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError, as_typed
from trendflow.models.triton.connection import is_live
from trendflow.models.triton.environment import ServerEnvironment
from trendflow.models.triton.process import end_process, exact_process, session_members, started_ticks_of
from trendflow.models.triton.repository import Repository

HOST = "127.0.0.1"
STATE = "server.json"
LOG = "server.log"

_PORTS = ("http", "grpc", "metrics")
_START_TIMEOUT_S = 120.0
_EXIT_TIMEOUT_S = 5
"""How long the server lets running inferences finish when it is told to end."""
_POLL_S = 0.1
_SHARED_MEMORY = Path("/dev/shm")
_LOG_LINES = 15

# A server started by this process is its child and has to be waited for; one found by its state file is not.
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class ServerState:
    """A started server. `started_ticks` (clock ticks since boot) tells its process from a later one of the same id.

    `memory_prefix` begins the names of the shared memory between the server and its backend processes.
    """

    pid: int
    started_ticks: int
    http_port: int
    grpc_port: int
    metrics_port: int
    log: str
    memory_prefix: str
    repository: str
    repository_digest: str
    models: tuple[str, ...]

    @property
    def grpc_url(self) -> str:
        return f"{HOST}:{self.grpc_port}"

    @property
    def is_alive(self) -> bool:
        return started_ticks_of(self.pid) == self.started_ticks

    def log_tail(self) -> str:
        """The last lines of the log, without the folders of this machine."""
        try:
            text = Path(self.log).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        lines = [line for line in text.splitlines() if line.strip() and line[0] not in "+|"]
        return "\n".join(lines[-_LOG_LINES:]).replace(str(Path(self.log).parent), "<triton>")


def read_state(folder: Path) -> ServerState | None:
    """The server last started from `folder`, running or not; None when there is none."""
    try:
        values = json.loads((folder / STATE).read_bytes())
        return ServerState(**{**values, "models": tuple(values["models"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as exc:
        raise TrendFlowError(
            "config_invalid", f"The state file {STATE} of the Triton server cannot be read; delete it.", file=STATE
        ) from exc


def running(folder: Path) -> ServerState | None:
    """The server of `folder` if its process lives."""
    state = read_state(folder)
    return state if state is not None and state.is_alive else None


def endpoint(url: str | None, folder: Path) -> str:
    """`host:port` of the configured server, else of the one started from `folder`. Raises `triton_unavailable`."""
    if url is not None:
        return url
    state = running(folder)
    if state is None:
        raise TrendFlowError(
            "triton_unavailable",
            "No Triton server runs here: start one with 'trendflow triton up' or set TRENDFLOW_TRITON_URL.",
        )
    return state.grpc_url


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
    chosen = _choose_ports(ports or {})
    folder.mkdir(parents=True, exist_ok=True)
    backends = folder / "backends"
    environment.install_backends(backends)
    log, memory_prefix = folder / LOG, f"triton-{secrets.token_hex(6)}-"
    with log.open("wb") as sink:
        try:
            # A session of its own: Ctrl-C in the terminal that started it is not meant for the server, and whatever
            # process it starts can be told by it.
            process = subprocess.Popen(
                _command(environment, repository.path, backends, memory_prefix, chosen),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment.variables(),
                start_new_session=True,
            )
        except OSError as exc:
            raise TrendFlowError(
                "dependency_missing", "The Triton server cannot be executed on this machine.", errno=exc.errno
            ) from exc
    _children[process.pid] = process
    state = ServerState(
        pid=process.pid,
        started_ticks=started_ticks_of(process.pid) or 0,
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
        _write_state(folder, state)
        _await_live(process, state, timeout_s)
    except BaseException:
        stop(folder, state)
        raise
    return state


def stop(folder: Path, state: ServerState) -> bool:
    """End exactly this server and forget it; False when it was gone already.

    It gets some seconds to finish what it is doing.
    """
    with exact_process(state.pid, state.started_ticks) as handle:
        if handle is not None:
            end_process(handle, _EXIT_TIMEOUT_S + 5)
    child = _children.pop(state.pid, None)
    if child is not None:
        child.wait()
    # A server that died, or that was told to end while it loaded, leaves its backend processes and their memory behind.
    for pid, started_ticks in session_members(state.pid, state.started_ticks):
        with exact_process(pid, started_ticks) as orphan:
            if orphan is not None:
                end_process(orphan, 0)
    for region in _SHARED_MEMORY.glob(f"{state.memory_prefix}*"):
        region.unlink(missing_ok=True)
    if read_state(folder) == state:
        (folder / STATE).unlink(missing_ok=True)
    return handle is not None


def _command(
    environment: ServerEnvironment, repository: Path, backends: Path, memory_prefix: str, ports: Mapping[str, int]
) -> list[str]:
    options = {
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


def _await_live(process: subprocess.Popen[bytes], state: ServerState, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not (is_live(state.grpc_url, timeout_s=1.0) and _listens(state.http_port) and _listens(state.metrics_port)):
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(_POLL_S)
            raise TrendFlowError(
                "triton_unavailable",
                f"The Triton server ended with code {code} while it started.",
                exit_code=code,
                log=state.log_tail(),
            )
        if time.monotonic() > deadline:
            raise TrendFlowError(
                "triton_unavailable",
                f"The Triton server did not answer within {timeout_s:.0f} seconds.",
                log=state.log_tail(),
            )


def _listens(port: int) -> bool:
    """Whether a service is up: the server opens them one after the other, gRPC first."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _choose_ports(wanted: Mapping[str, int | None]) -> dict[str, int]:
    """A port for each service, all of them free now. Raises `config_invalid` for a wanted one that is not."""
    chosen = {}
    with ExitStack() as stack:  # all are held until all are chosen, so that none is given twice
        for name in _PORTS:
            port = wanted.get(name) or 0
            probe = stack.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as exc:
                reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
                raise TrendFlowError(
                    "config_invalid", f"Triton cannot use port {port} for {name}: {reason}.", port=port, service=name
                ) from exc
            chosen[name] = int(probe.getsockname()[1])
    return chosen


def _write_state(folder: Path, state: ServerState) -> None:
    try:
        handle, name = tempfile.mkstemp(prefix=f".{STATE}.", dir=folder)
        with os.fdopen(handle, "wb") as file:
            file.write(canonical_json(asdict(state)))
        os.replace(name, folder / STATE)
    except OSError as exc:
        raise as_typed(exc) from exc
