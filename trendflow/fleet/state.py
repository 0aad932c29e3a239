"""The state file of the fleet (`fleet_state_v1`): which processes it started, and on which ports. No secrets."""

from __future__ import annotations

import socket
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from trendflow.contracts.canonical import canonical_json, utc_now
from trendflow.contracts.errors import TrendFlowError
from trendflow.fleet.files import write_atomically
from trendflow.processes import boot_id, started_ticks_of

STATE = "state.json"
SCHEMA: Final = "fleet_state_v1"

_STRICT = ConfigDict(extra="forbid")

Port = Annotated[int, Field(ge=1, le=65535)]
Pid = Annotated[int, Field(ge=1)]
Ticks = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]


@validated(frozen=True, config=_STRICT)
class Identity:
    """A process and no later one of the same id; `started_ticks` are clock ticks since boot."""

    pid: Pid
    started_ticks: Ticks

    @property
    def is_alive(self) -> bool:
        return started_ticks_of(self.pid) == self.started_ticks


@validated(frozen=True, config=_STRICT)
class Process:
    """A started service. How it is ended stands here too, so that `down` needs nothing but this file."""

    service: Text
    process: Identity
    # None for a service that writes its log by itself.
    log_writer: Identity | None
    log: Text
    definition: Text
    started_at: Text
    stop_signal: Annotated[int, Field(ge=1, le=64)]
    stop_limit_s: Annotated[float, Field(ge=0)]
    # The services that it needs, and therefore ends before.
    needs: tuple[Text, ...] = ()

    @property
    def is_alive(self) -> bool:
        """Whether the process lives and its log is written: without a writer it would block or break one day."""
        return self.process.is_alive and (self.log_writer is None or self.log_writer.is_alive)


@validated(frozen=True, config=_STRICT)
class FleetState:
    """What the fleet of one home is. `processes` stand in the order in which they were started.

    `boot` and `host` say where process ids mean anything: a home may be shared, and outlives a restart of the machine.
    """

    schema_version: Literal["fleet_state_v1"]
    host: Text
    boot: Text
    # True from the end of a successful `up` to the beginning of `down`, whatever becomes of the processes meanwhile.
    is_up: bool
    updated_at: Text
    ports: dict[str, dict[str, Port]]
    processes: tuple[Process, ...]
    # How many there are of a kind of service that may be there several times, as the last `up` was told.
    replicas: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)

    @property
    def is_elsewhere(self) -> bool:
        """Whether its processes run on another host, where only that host can tell what became of them."""
        return bool(self.processes) and self.host != socket.gethostname()

    @property
    def process_ids(self) -> set[int]:
        """Of all services, and of the writers of their logs."""
        both = (identity for row in self.processes for identity in (row.process, row.log_writer))
        return {identity.pid for identity in both if identity is not None}

    def process(self, service: str) -> Process | None:
        return next((process for process in self.processes if process.service == service), None)

    def is_alive(self, process: Process) -> bool:
        return not self.is_elsewhere and self.boot == boot_id() and process.is_alive

    def having(self, process: Process) -> FleetState:
        """With a process that was just started."""
        return replace(self, processes=(*self.lacking(process.service).processes, process))

    def lacking(self, service: str) -> FleetState:
        return replace(self, processes=tuple(found for found in self.processes if found.service != service))


_STATE: TypeAdapter[FleetState] = TypeAdapter(FleetState)


def read_state(folder: Path) -> FleetState:
    """The state of the fleet in `folder`; an empty one when none was ever started.

    Raises `config_invalid` for a file that this user may not read, or that no fleet wrote.
    """
    try:
        return _STATE.validate_json((folder / STATE).read_bytes())
    except FileNotFoundError:
        return FleetState(
            schema_version=SCHEMA,
            host=socket.gethostname(),
            boot=boot_id(),
            is_up=False,
            updated_at=utc_now(),
            ports={},
            processes=(),
        )
    except PermissionError as exc:
        raise TrendFlowError(
            "config_invalid", "The fleet of this home belongs to another user of this machine.", file=STATE
        ) from exc
    except (OSError, ValidationError) as exc:
        raise TrendFlowError(
            "config_invalid",
            f"The state file {STATE} of the fleet cannot be read; end processes that still run, then delete the file.",
            file=STATE,
        ) from exc


def write_state(folder: Path, state: FleetState) -> FleetState:
    """Store `state` as this moment's; raises what `write_atomically` does."""
    stamped = replace(state, updated_at=utc_now())
    write_atomically(folder / STATE, canonical_json(asdict(stamped)))
    return stamped
