"""Brings a fleet up, tells how it is, and ends it. All of it is decided from the state file and the processes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from trendflow.contracts.errors import TrendFlowError, unwritable
from trendflow.fleet.credentials import assign_secrets, read_secrets
from trendflow.fleet.files import make_folder
from trendflow.fleet.launch import LOG_LIMIT_BYTES, exit_code_of, log_tail, start_process, stop_process
from trendflow.fleet.ports import assign_ports, require_free
from trendflow.fleet.service import Blueprint, Service, Site, in_order
from trendflow.fleet.state import FleetState, Process, read_state, write_state
from trendflow.processes import boot_id

Report = Callable[[str, str], None]
"""Told the name of a service and what happens: `starting`, `started`, `running`, `stopping`, `stopped` or `gone`."""

_POLL_S = 0.1


def _silent(_service: str, _event: str) -> None:
    pass


def read_site(folder: Path) -> Site:
    """What the fleet in `folder` has decided so far. Raises what `read_state` and `read_secrets` do."""
    return Site(folder, read_state(folder).ports, read_secrets(folder))


@dataclass(frozen=True)
class Fleet:
    """The services of one home. Only one process at a time may change them; anybody may look."""

    folder: Path
    blueprints: Sequence[Blueprint]
    log_limit: int = LOG_LIMIT_BYTES

    def up(
        self,
        wanted: Sequence[str] | None = None,
        report: Report = _silent,
        settle: Callable[[Site], None] | None = None,
    ) -> Site:
        """Start what does not run, each service after those that it needs are healthy; a service that runs is kept.

        `wanted` names the services (all when None); what they need is started too. `settle` is called with the site
        before the first start. What was started stays when a later service fails, and `up` again goes on from there.

        Raises `config_invalid` (a port is taken, another command is at work, the fleet runs on another host),
        `dependency_missing` (no such program), and of a service that ended while it started or did not become healthy
        its own code, with the end of its log.
        """
        chosen = in_order(self.blueprints, wanted)
        with self._exclusive():
            state = self._current_state()
            ports = assign_ports(chosen, state.ports)
            state = write_state(self.folder, replace(state, ports=ports))
            site = Site(self.folder, ports, assign_secrets(self.folder, chosen))
            if settle is not None:
                settle(site)
            for blueprint in chosen:
                state = self._ensure(blueprint, site, state, report)
            write_state(self.folder, replace(state, is_up=True))
        return site

    def down(self, report: Report = _silent) -> int:
        """End all services, the last started first; ports, secrets and data stay. The number of those that ran.

        Raises `config_invalid` when another command is at work or the fleet runs on another host or belongs to another
        user, `timeout` when a process cannot be ended.
        """
        if not self.folder.exists():  # asked before, so that nothing is created for a fleet that never was
            return 0
        with self._exclusive():
            state = write_state(self.folder, replace(self._current_state(), is_up=False))
            ended = 0
            for process in self._last_first(state.processes):
                report(process.service, "stopping")
                was_alive = stop_process(process)
                ended += was_alive
                state = write_state(self.folder, state.lacking(process.service))
                report(process.service, "stopped" if was_alive else "gone")
        return ended

    def _last_first(self, processes: Sequence[Process]) -> list[Process]:
        """What needs others comes before them, even if those were started again later; strangers come first of all."""
        order = [blueprint.name for blueprint in in_order(self.blueprints)]
        return sorted(
            processes,
            key=lambda found: order.index(found.service) if found.service in order else len(order),
            reverse=True,
        )

    def _ensure(self, blueprint: Blueprint, site: Site, state: FleetState, report: Report) -> FleetState:
        """Start a service unless it runs as it is defined now, and wait until it is healthy."""
        name, service = blueprint.name, blueprint.build(site)
        process = state.process(name)
        starts = process is None or not process.is_alive or process.definition != service.definition
        if process is not None and starts:
            report(name, "stopping")
            stop_process(process)  # also what a service that died has left behind
            state = write_state(self.folder, state.lacking(name))
        if process is None or starts:
            report(name, "starting")
            require_free(name, site.ports.get(name, {}))
            process = start_process(name, service, self._log(name), self.log_limit)
            try:
                state = write_state(self.folder, state.having(process))
            except BaseException:
                stop_process(process)  # nobody would find it again
                raise
        self._await_health(name, service, process)
        report(name, "started" if starts else "running")
        return state

    def _await_health(self, name: str, service: Service, process: Process) -> None:
        deadline = time.monotonic() + service.start_limit_s
        while (trouble := service.health()) is not None:
            if not process.is_alive:
                stop_process(process)  # its last words are written when nothing of it is left
                tail = log_tail(process, self.folder)
                code = exit_code_of(process)
                how = "" if code is None else f" with code {code}" if code >= 0 else f" by signal {-code}"
                last = f": {tail[-1]}" if tail else ", without a word."
                raise TrendFlowError(
                    service.error_code,
                    f"The service {name!r} ended{how} while it started{last}",
                    service=name,
                    exit_code=code,
                    log="\n".join(tail),
                )
            if time.monotonic() > deadline:
                raise TrendFlowError(
                    service.error_code,
                    f"The service {name!r} is not healthy after {service.start_limit_s:.0f} seconds: {trouble}.",
                    service=name,
                    log="\n".join(log_tail(process, self.folder)),
                )
            time.sleep(_POLL_S)
        if not process.is_alive:
            raise TrendFlowError(
                service.error_code,
                f"The service {name!r} ended while it started, and another program answers in its place.",
                service=name,
            )

    def _current_state(self) -> FleetState:
        """The state, without processes that ended with an earlier start of this machine."""
        state = read_state(self.folder)
        if state.is_elsewhere:
            raise TrendFlowError(
                "config_invalid",
                f"The fleet of this home runs on the host {state.host}; end it there, or delete its state file when "
                "that host is gone.",
                host=state.host,
            )
        if state.boot != boot_id():
            state = replace(state, boot=boot_id(), processes=())
        return replace(state, host=socket.gethostname())

    def _log(self, name: str) -> Path:
        make_folder(self.folder / "logs")
        return self.folder / "logs" / f"{name}.log"

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Two commands must not start and end services at the same time; the second is told so at once."""
        # Services that run as another user have their folders inside, so this one may be entered but not read.
        make_folder(self.folder, 0o711)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as exc:
            raise TrendFlowError("config_invalid", "Another command is starting or ending this fleet.") from exc
        except OSError as exc:
            raise unwritable(exc, "The folder of the fleet") from exc
        try:
            yield
        finally:
            lock.release()
