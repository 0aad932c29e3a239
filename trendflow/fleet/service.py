"""What a service of the fleet is: data that the supervisor works on, and nothing that it does by itself."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError

Health = Callable[[], str | None]
"""Asks a service whether it does its work: None when it does, else one sentence that says what is wrong."""

_START_LIMIT_S = 180.0
_STOP_LIMIT_S = 30.0


@dataclass(frozen=True)
class ProcessUser:
    """Whom a process runs as, where that is not the user who started it."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Started:
    """A process that a service's own launcher started."""

    pid: int
    started_ticks: int
    log: Path


@dataclass(frozen=True)
class Service:
    """One process, ready to be started.

    `environment` comes on top of this process's own; of one that is not `told_settings`, on top of what any program
    needs, without settings and passwords. `folder` is the working folder and holds the data; it is created
    for `user` alone. `prepare` runs before each start, for example to create an empty database; it must be able to run
    again after it was interrupted.

    `launcher` starts a service that knows how to start itself; `command` only defines it then.

    `health` decides whether what needs this service may start. `readiness` is what the service says of its work beyond
    that; it delays nothing and is shown by the status. `defect` is what no waiting mends of a service that is not
    healthy, and a new start may: `up` tells it at once, and the keeper starts such a service again. `address` is what a
    person opens or calls, and `token_file` the file with the token that this takes.
    """

    command: tuple[str, ...]
    health: Health
    folder: Path
    readiness: Health | None = None
    defect: Health | None = None
    address: str | None = None
    token_file: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    told_settings: bool = True
    prepare: Callable[[], None] | None = None
    launcher: Callable[[], Started] | None = None
    user: ProcessUser | None = None
    start_limit_s: float = _START_LIMIT_S
    stop_signal: signal.Signals = signal.SIGTERM
    stop_limit_s: float = _STOP_LIMIT_S
    error_code: str = "internal_error"
    """What it means for a caller that the service is not there."""

    @property
    def definition(self) -> str:
        """Digest of what was started; a running process of another definition is replaced by `up`."""
        return digest_of({"command": list(self.command), "environment": dict(self.environment)})


@dataclass(frozen=True)
class Site:
    """What the fleet of one home decided once and keeps: its folder, the ports and the generated secrets."""

    folder: Path
    ports: Mapping[str, Mapping[str, int]]
    secrets: Mapping[str, str]

    def service_folder(self, name: str) -> Path:
        return self.folder / name

    def port(self, service: str, purpose: str) -> int:
        return self.ports[service][purpose]

    def secret(self, service: str, purpose: str) -> str:
        return self.secrets[secret_name(service, purpose)]

    def shared_secret(self, name: str) -> str | None:
        """A secret that several services share; None when none of them was ever started."""
        return self.secrets.get(name)


def secret_name(service: str, purpose: str) -> str:
    return f"{service}.{purpose}"


@dataclass(frozen=True)
class Blueprint:
    """A service before its ports and secrets are known: `build` turns it into a `Service` of one site.

    `ports` and `secrets` name the purposes for which one is chosen once; `shared_secrets` are whole names, the same
    secret for every service that has them. `needs` are the services that must be healthy
    before this one starts, and that end after it.
    """

    name: str
    build: Callable[[Site], Service]
    ports: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    shared_secrets: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


def in_order(blueprints: Iterable[Blueprint], wanted: Sequence[str] | None = None) -> list[Blueprint]:
    """The wanted services (all when None) with everything that they need, each after what it needs.

    Raises `config_invalid` for an unknown name, a name given twice and services that need each other.
    """
    given = list(blueprints)
    known = {blueprint.name: blueprint for blueprint in given}
    if len(known) < len(given):
        raise TrendFlowError("config_invalid", "Two services of the fleet have the same name.")
    ordered: dict[str, Blueprint] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise TrendFlowError("config_invalid", f"Services need each other: {' → '.join((*path, name))}.")
        if name not in known:
            by = f", which {path[-1]!r} needs" if path else ""
            raise TrendFlowError(
                "config_invalid", f"The fleet has no service {name!r}{by}; it has {', '.join(known) or 'none'}."
            )
        for need in known[name].needs:
            visit(need, (*path, name))
        ordered.setdefault(name, known[name])

    for name in known if wanted is None else wanted:
        visit(name, ())
    return list(ordered.values())
