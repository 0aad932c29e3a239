"""Brings a fleet up, repairs it, and ends it. All of it is decided from the state file and the processes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock, Timeout

from trendflow.contracts.errors import TrendFlowError, unwritable
from trendflow.fleet.credentials import assign_secrets, read_secrets
from trendflow.fleet.files import make_folder
from trendflow.fleet.launch import (
    LOG_LIMIT_BYTES,
    REMAINS_LIMIT_S,
    end_unrecorded,
    exit_code_of,
    log_tail,
    start_process,
    stop_process,
)
from trendflow.fleet.ports import assign_ports, require_free
from trendflow.fleet.service import Blueprint, Service, Site, in_order
from trendflow.fleet.state import FleetState, Identity, Process, read_state, write_state
from trendflow.processes import boot_id

Report = Callable[[str, str], None]
"""Told the name of a service and what happens: `starting`, `started`, `running`, `stopping`, `stopped` or `gone`; or
`waiting for` and the name of what holds the fleet."""

_POLL_S = 0.1
# What a repair takes beyond ending services: it starts processes and does not wait until they are healthy.
_REPAIR_LIMIT_S = 180.0


@dataclass(frozen=True)
class Repair:
    """What a repair found. `services` are those that it started again, or why it could not."""

    is_up: bool
    services: Mapping[str, TrendFlowError | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Trouble:
    """What is wrong with a service, and with which process of it; whether no waiting mends it."""

    process: Identity
    text: str
    is_defect: bool = False


def _silent(_service: str, _event: str) -> None:
    pass


def read_site(folder: Path) -> Site:
    """What the fleet in `folder` has decided so far. Raises what `read_state` and `read_secrets` do."""
    return Site(folder, read_state(folder).ports, read_secrets(folder))


@dataclass(frozen=True)
class _Starting:
    """A service that was started, or found running, and has not proved its health yet."""

    service: Service
    process: Process
    is_new: bool
    deadline: float


@dataclass(frozen=True)
class Fleet:
    """The services of one home. Only one process at a time may change them; anybody may look.

    `replicas` says how many there are of a kind of service, for those who build the blueprints next time;
    `given_secrets` are used where none of that name is stored.
    """

    folder: Path
    blueprints: Sequence[Blueprint]
    log_limit: int = LOG_LIMIT_BYTES
    replicas: Mapping[str, int] = field(default_factory=dict)
    given_secrets: Mapping[str, str] = field(default_factory=dict)

    def up(
        self,
        wanted: Sequence[str] | None = None,
        report: Report = _silent,
        settle: Callable[[Site], None] | None = None,
    ) -> Site:
        """Start what does not run, each service as soon as those that it needs are healthy; one that runs is kept.

        `wanted` names the services (all when None); what they need is started too. Without names, services that the
        fleet does not have any more are ended. `settle` is called with the site before the first start. What was
        started stays when a later service fails, and `up` again goes on from there.

        Raises `config_invalid` (a port is taken, another command is at work, the fleet runs on another host),
        `timeout` (a repair does not finish), `dependency_missing` (no such program), and of a service that ended while
        it started, has a defect or did not become healthy its own code, with the end of its log.
        """
        chosen = in_order(self.blueprints, wanted)
        with self._exclusive(report):
            state = self._current_state()
            ports = assign_ports(chosen, state.ports)
            replicas = {**state.replicas, **self.replicas}
            state = write_state(self.folder, replace(state, ports=ports, replicas=replicas))
            site = Site(self.folder, ports, assign_secrets(self.folder, chosen, self.given_secrets))
            if settle is not None:
                settle(site)
            if wanted is None:
                known = {blueprint.name for blueprint in chosen}
                strangers = [process for process in state.processes if process.service not in known]
                state, _ = self._stop(strangers, state, report)
            state = self._start(chosen, site, state, report)
            write_state(self.folder, replace(state, is_up=True))
        return site

    def repair(self, may_start: Callable[[str], bool], report: Report = _silent) -> Repair:
        """Start again what was started and has ended by itself, as far as what it needs is healthy and `may_start`.

        Does not wait until it is healthy; the next repair sees what became of it. Raises what `read_state` does.
        """
        with self._lock(".repair.lock", 0) as is_free:
            if not is_free:
                return Repair(is_up=True)  # a command is at work
            state = self._current_state()
            if not state.is_up:
                return Repair(is_up=False)
            site = Site(self.folder, state.ports, read_secrets(self.folder))
            repaired: dict[str, TrendFlowError | None] = {}
            for blueprint in in_order(self.blueprints):
                process = state.process(blueprint.name)
                if process is None or process.is_alive or not may_start(blueprint.name):
                    continue
                if not all(self._works(need, site, state) for need in blueprint.needs):
                    continue
                try:
                    state, _ = self._ensure(blueprint, site, state, report)
                    repaired[blueprint.name] = None
                except TrendFlowError as error:
                    repaired[blueprint.name] = error  # the others must not wait for it
        return Repair(is_up=True, services=repaired)

    def troubles(self) -> dict[str, Trouble]:
        """What the health checks of services find wrong whose processes live. Raises what `read_site` does."""
        state, site = read_state(self.folder), read_site(self.folder)
        asked = [
            (blueprint, process.process)
            for blueprint in self.blueprints
            if (process := state.process(blueprint.name)) is not None and state.is_alive(process)
        ]
        with ThreadPoolExecutor(max_workers=max(1, len(asked))) as pool:
            answers = list(pool.map(lambda pair: _trouble(pair[0].build(site), pair[1]), asked))
        return {
            blueprint.name: answer for (blueprint, _), answer in zip(asked, answers, strict=True) if answer is not None
        }

    def end(self, service: str, seen: Identity) -> bool:
        """End one service if it is still the process that was `seen`; the next repair starts it again.

        False when it is another one by now, or a command is at work: then nothing was done. Raises what `stop_process`
        does.
        """
        with self._lock(".repair.lock", 0) as is_free:
            process = self._current_state().process(service)
            if not is_free or process is None or process.process != seen:
                return False
            stop_process(process)
            return True

    def down(self, report: Report = _silent) -> int:
        """End all services, each after those that need it; ports, secrets and data stay. The number of those that ran.

        The state file says all that it takes: the blueprints, which may be wrong by now, are not asked.
        Raises `config_invalid` when another command is at work or the fleet runs on another host or belongs to another
        user, `timeout` when a process cannot be ended or a repair does not finish.
        """
        if not self.folder.exists():  # asked before, so that nothing is created for a fleet that never was
            return 0
        with self._exclusive(report):
            state = write_state(self.folder, replace(self._current_state(), is_up=False))
            ended = 0
            for together in _last_first(state.processes):
                state, n_alive = self._stop(together, state, report)
                ended += n_alive
            for log in (self.folder / "logs").glob("*.log"):
                end_unrecorded(log, state.process_ids)
        return ended

    def _stop(self, processes: Sequence[Process], state: FleetState, report: Report) -> tuple[FleetState, int]:
        """End these processes side by side: the state without them, and how many of them ran."""
        ended = 0
        with ThreadPoolExecutor(max_workers=max(1, len(processes))) as pool:
            for process in processes:
                report(process.service, "stopping")
            ending = {pool.submit(stop_process, process): process.service for process in processes}
            for done in as_completed(ending):
                was_alive = done.result()
                ended += was_alive
                state = write_state(self.folder, state.lacking(ending[done]))
                report(ending[done], "stopped" if was_alive else "gone")
        return state, ended

    def _start(self, chosen: Sequence[Blueprint], site: Site, state: FleetState, report: Report) -> FleetState:
        """Ensure all services side by side, as their needs allow, until all are healthy."""
        todo, waiting = list(chosen), dict[str, _Starting]()
        healthy = set[str]()
        while todo or waiting:
            for blueprint in [blueprint for blueprint in todo if healthy.issuperset(blueprint.needs)]:
                todo.remove(blueprint)
                state, waiting[blueprint.name] = self._ensure(blueprint, site, state, report)
            found = [name for name, starting in waiting.items() if self._is_healthy(name, starting)]
            for name in found:
                report(name, "started" if waiting.pop(name).is_new else "running")
            healthy.update(found)
            if not found:
                time.sleep(_POLL_S)  # servers tell nobody when they are ready, they have to be asked
        return state

    def _works(self, name: str, site: Site, state: FleetState) -> bool:
        process = state.process(name)
        blueprint = next(blueprint for blueprint in self.blueprints if blueprint.name == name)
        return process is not None and process.is_alive and blueprint.build(site).health() is None

    def _ensure(
        self, blueprint: Blueprint, site: Site, state: FleetState, report: Report
    ) -> tuple[FleetState, _Starting]:
        """Start a service unless it runs as it is defined now, without a defect."""
        name, service = blueprint.name, blueprint.build(site)
        process = state.process(name)
        starts = (
            process is None
            or not process.is_alive
            or process.definition != service.definition
            or _defect(service) is not None
        )
        if process is not None and starts:
            report(name, "stopping")
            stop_process(process)  # also what a service that died has left behind
        if process is None or starts:
            report(name, "starting")
            end_unrecorded(self._log(name), state.process_ids, service)
            require_free(name, site.ports.get(name, {}))
            process = start_process(name, service, self._log(name), self.log_limit, blueprint.needs)
            try:
                state = write_state(self.folder, state.having(process))
            except BaseException:
                stop_process(process)  # nobody would find it again
                raise
        return state, _Starting(service, process, starts, time.monotonic() + service.start_limit_s)

    def _is_healthy(self, name: str, starting: _Starting) -> bool:
        """Whether it is. Raises of one that ended, has a defect or does not become healthy in time its own code."""
        service, process = starting.service, starting.process
        trouble = service.health()
        if trouble is None and process.is_alive:
            return True
        if trouble is None:
            raise TrendFlowError(
                service.error_code,
                f"The service {name!r} ended while it started, and another program answers in its place.",
                service=name,
            )
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
        defect = _defect(service)
        if defect is not None:
            raise TrendFlowError(
                service.error_code,
                f"The service {name!r} does not work: {defect}.",
                service=name,
                log="\n".join(log_tail(process, self.folder)),
            )
        if time.monotonic() > starting.deadline:
            raise TrendFlowError(
                service.error_code,
                f"The service {name!r} is not healthy after {service.start_limit_s:.0f} seconds: {trouble}.",
                service=name,
                log="\n".join(log_tail(process, self.folder)),
            )
        return False

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
    def _exclusive(self, report: Report) -> Iterator[None]:
        """Two commands must not start and end services at the same time; the second is told so at once.

        A repair is not a command: it is waited for, as long as it may take to end what has to be ended.
        """
        # Services that run as another user have their folders inside, so this one may be entered but not read.
        make_folder(self.folder, 0o711)
        with ExitStack() as stack:
            if not stack.enter_context(self._lock(".lock", 0)):
                raise TrendFlowError("config_invalid", "Another command is starting or ending this fleet.")
            if not stack.enter_context(self._lock(".repair.lock", 0)):
                report("the keeper's repair", "waiting for")
                ending = (process.stop_limit_s + REMAINS_LIMIT_S for process in read_state(self.folder).processes)
                if not stack.enter_context(self._lock(".repair.lock", _REPAIR_LIMIT_S + sum(ending))):
                    raise TrendFlowError(
                        "timeout", "The keeper is repairing this fleet and does not finish; its log says what it does."
                    )
            yield

    @contextmanager
    def _lock(self, name: str, limit_s: float) -> Iterator[bool]:
        """Whether the lock was free in time; then it is held."""
        lock = FileLock(self.folder / name)
        try:
            lock.acquire(timeout=limit_s)
        except Timeout:
            yield False
            return
        except OSError as exc:
            raise unwritable(exc, "The folder of the fleet") from exc
        try:
            yield True
        finally:
            lock.release()


def _defect(service: Service) -> str | None:
    return None if service.defect is None else service.defect()


def _trouble(service: Service, process: Identity) -> Trouble | None:
    found = service.health()
    if found is None:
        return None
    defect = _defect(service)
    return Trouble(process, found) if defect is None else Trouble(process, defect, is_defect=True)


def _last_first(processes: Sequence[Process]) -> list[list[Process]]:
    """Those that may end together, each group after all that need one of it."""
    left = list(processes)
    groups = []
    while left:
        needed = {need for process in left for need in process.needs}
        # None is free in a circle, which no fleet starts: whoever wrote one has its services ended all the same.
        group = [process for process in left if process.service not in needed] or left
        left = [process for process in left if process not in group]
        groups.append(group)
    return groups
