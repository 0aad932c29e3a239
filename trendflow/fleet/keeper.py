"""Keeps a fleet running without a person: a process of the fleet that starts again what has ended or does not work."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from trendflow.contracts.errors import as_typed
from trendflow.fleet.files import make_folder
from trendflow.fleet.service import Blueprint, Health, Service, Site
from trendflow.fleet.state import Identity, read_state
from trendflow.fleet.supervisor import Fleet, Repair
from trendflow.processes import started_ticks_of

log = logging.getLogger(__name__)

NAME = "keeper"

_LOOK_S = 3.0
_FIRST_WAIT_S = 5.0
_LONGEST_WAIT_S = 300.0
# A service that ran for so long after it was started again has recovered.
_RECOVERED_S = 600.0
_ASK_S = 30.0
# Far beyond what a busy machine or a slow start explains: one that is ended in vain costs the work of its runs.
_HUNG_S = 600.0
# One look asks several services, each of which may take seconds to answer on a busy machine.
_SILENT_S = 120.0
_BEAT = "beat"


def keeper(command: tuple[str, ...], environment: Callable[[Site], dict[str, str]], needs: Iterable[str]) -> Blueprint:
    """The keeper as a service of the fleet that it keeps: the last to start, the first to end."""

    def build(site: Site) -> Service:
        return Service(
            command=command,
            environment=environment(site),
            folder=site.service_folder(NAME),
            health=_looks(site),
        )

    return Blueprint(name=NAME, build=build, needs=tuple(needs))


@dataclass
class _Patience:
    """How often a service was started again lately, and from when on it may be once more."""

    failures: int = 0
    not_before: float = 0.0
    started: float = 0.0


@dataclass
class Keeper:
    """Repairs the fleet again and again until it is ended. `fleet` is asked before every look, for it may change."""

    folder: Path
    fleet: Callable[[], Fleet]
    now: Callable[[], float] = time.monotonic
    _patience: dict[str, _Patience] = field(default_factory=dict)
    _asked: float | None = None
    _ill_since: dict[Identity, float] = field(default_factory=dict)

    def run(self, stop: threading.Event) -> None:
        """Look every few seconds until `stop` is set, or somebody ended the fleet."""
        log.info("the keeper looks after the fleet every %g s", _LOOK_S)
        said = ""
        while True:
            try:
                found = self.look()
                _beat(self.folder / NAME)
            except Exception as exc:  # nobody looks after the keeper: it outlives whatever it meets
                trouble = str(as_typed(exc))
                if trouble != said:
                    log.error("ALARM: the fleet cannot be looked after: %s", trouble)
                said = trouble
            else:
                said = ""
                if not found.is_up:
                    log.info("the fleet is not up any more")
                    return
            if stop.wait(_LOOK_S):
                return

    def look(self) -> Repair:
        """Repair once; what hangs is ended, and started again by the next look. Raises what `Fleet.repair` does."""
        fleet = self.fleet()
        found = fleet.repair(self._may_start)
        for name, error in found.services.items():
            patience = self._next(name)
            wait_s = patience.not_before - self.now()
            if error is None:
                log.error(
                    "ALARM: the service %s had ended and was started again, %d in a row; not again within %.0f s",
                    name,
                    patience.failures,
                    wait_s,
                )
            else:
                log.error("ALARM: the service %s cannot be started, next try in %.0f s: %s", name, wait_s, error)
        if found.is_up and (self._asked is None or self.now() - self._asked >= _ASK_S):
            self._asked = self.now()
            self._end_hung(fleet)
        return found

    def _end_hung(self, fleet: Fleet) -> None:
        """End services that live and have not done their work for long, or never will, though all they need works."""
        ill, now = fleet.troubles(), self.now()
        ill.pop(NAME, None)  # this process: nobody would start it again
        blamed = {
            blueprint.name
            for blueprint in fleet.blueprints
            if blueprint.name in ill and not any(need in ill for need in blueprint.needs)
        }
        # By the process, so that one which took its place meanwhile begins anew.
        self._ill_since = {ill[name].process: self._ill_since.get(ill[name].process, now) for name in blamed}
        for name in sorted(blamed):
            trouble = ill[name]
            if trouble.is_defect and self._may_start(name):
                log.error("ALARM: the service %s does not work and is ended: %s", name, trouble.text)
            elif now - self._ill_since[trouble.process] >= _HUNG_S:
                log.error("ALARM: the service %s hangs and is ended: %s", name, trouble.text)
            else:
                continue
            fleet.end(name, trouble.process)

    def _may_start(self, name: str) -> bool:
        known = self._patience.get(name)
        return known is None or self.now() >= known.not_before

    def _next(self, name: str) -> _Patience:
        known = self._patience.get(name, _Patience())
        now = self.now()
        failures = 1 if now - known.started > _RECOVERED_S else known.failures + 1
        wait_s = min(_FIRST_WAIT_S * 2 ** (failures - 1), _LONGEST_WAIT_S)
        self._patience[name] = _Patience(failures, now + wait_s, now)
        return self._patience[name]


def _beat(folder: Path) -> None:
    """Leave word of this look, and whose it was."""
    make_folder(folder)
    new = folder / f"{_BEAT}.new"
    pid = os.getpid()
    new.write_text(f"{pid} {started_ticks_of(pid)}")
    new.replace(folder / _BEAT)


def _looks(site: Site) -> Health:
    """It has looked a moment ago, and it is the process that the fleet started last."""

    def check() -> str | None:
        process = read_state(site.folder).process(NAME)
        beat = site.service_folder(NAME) / _BEAT
        try:
            looked, whose = beat.stat().st_mtime, beat.read_text()
        except FileNotFoundError:
            looked, whose = 0.0, ""
        # Not by the time of its start: the clock may have been set back since.
        if process is None or whose != f"{process.process.pid} {process.process.started_ticks}":
            return "it has not looked yet"
        silent_s = time.time() - looked
        return None if silent_s <= _SILENT_S else f"it has not looked for {silent_s:.0f} seconds"

    return check
