"""What is remembered of a started server: enough to find it again, and never to mistake anything else for it."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError, unwritable
from trendflow.loopback import HOST
from trendflow.processes import boot_id, started_ticks_of

STATE = "server.json"

_LOG_LINES = 15
_LOG_TAIL_BYTES = 65536
_ADDRESS = re.compile(r"(?P<host>[^\s:/\[\]]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})\Z")

Port = Annotated[int, Field(ge=1, le=65535)]
Text = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True)
class ServerState:
    """A started server. `started_ticks` (clock ticks since boot) tells its process from a later one of the same id.

    `boot` and `host` say where that id means anything: a home folder may be shared, and outlives a restart of the
    machine. `memory_prefix` begins the names of the shared memory between the server and its backend processes.
    """

    pid: Annotated[int, Field(ge=1)]
    started_ticks: Annotated[int, Field(ge=0)]
    host: Text
    boot: Text
    http_port: Port
    grpc_port: Port
    metrics_port: Port
    log: Text
    # Everything in /dev/shm that begins so is deleted with the server.
    memory_prefix: Annotated[str, Field(pattern=r"^triton-[0-9a-z]+-$")]
    repository: Text
    repository_digest: Text
    models: tuple[str, ...]

    @property
    def grpc_url(self) -> str:
        return f"{HOST}:{self.grpc_port}"

    @property
    def server_id(self) -> str:
        """What the server calls itself: another server may answer on a port that was meant for this one."""
        return self.memory_prefix.rstrip("-")

    @property
    def is_elsewhere(self) -> bool:
        """Whether it was started on another host, where only that host can tell what became of it."""
        return self.host != socket.gethostname()

    @property
    def is_alive(self) -> bool:
        here = not self.is_elsewhere and self.boot == boot_id()
        return here and started_ticks_of(self.pid) == self.started_ticks

    def log_tail(self) -> str:
        """The last lines of the log, without the folders of this machine."""
        try:
            with Path(self.log).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_TAIL_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""
        lines = [line for line in text.splitlines() if line.strip() and line[0] not in "+|"]
        return "\n".join(lines[-_LOG_LINES:]).replace(str(Path(self.log).parent), "<triton>")


_STATE: TypeAdapter[ServerState] = TypeAdapter(ServerState)


def read_state(folder: Path) -> ServerState | None:
    """The server last started from `folder`, running or not; None when there is none.

    Raises `config_invalid` for a file that this user may not read, or that no server wrote.
    """
    try:
        return _STATE.validate_json((folder / STATE).read_bytes())
    except FileNotFoundError:
        return None
    except PermissionError as exc:
        raise TrendFlowError(
            "config_invalid", "The Triton server of this folder belongs to another user of this machine.", file=STATE
        ) from exc
    except (OSError, ValidationError) as exc:
        raise TrendFlowError(
            "config_invalid",
            f"The state file {STATE} of the Triton server cannot be read; end a server that still runs, then delete "
            "the file.",
            file=STATE,
        ) from exc


def write_state(folder: Path, state: ServerState) -> None:
    """Write the state file, complete or not at all. Raises what `unwritable` does."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{STATE}.", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(canonical_json(asdict(state)))
            os.replace(name, folder / STATE)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise unwritable(exc, "The folder of the Triton server") from exc


def forget(folder: Path, state: ServerState) -> None:
    """Delete the state file if it still speaks of this server."""
    if read_state(folder) == state:
        (folder / STATE).unlink(missing_ok=True)


def running(folder: Path) -> ServerState | None:
    """The server of `folder` if its process lives."""
    state = read_state(folder)
    return state if state is not None and state.is_alive else None


def endpoint(url: str | None, folder: Path) -> str:
    """`host:port` of the configured server, else of the one started from `folder`.

    Raises `config_invalid` for an address of another form, `triton_unavailable` when no server is known.
    """
    if url is not None:
        return _checked(url)
    state = running(folder)
    if state is None:
        raise TrendFlowError(
            "triton_unavailable",
            "No Triton server runs here: start one with 'trendflow triton up' or set TRENDFLOW_TRITON_URL.",
        )
    return state.grpc_url


def _checked(url: str) -> str:
    """gRPC itself would take a port beyond 65535 modulo 65536, and a scheme for a name to look up."""
    found = _ADDRESS.match(url)
    if found is None or not 1 <= int(found["port"]) <= 65535:
        raise TrendFlowError(
            "config_invalid", "TRENDFLOW_TRITON_URL must be the host:port of Triton's gRPC service, without a scheme."
        )
    return url
