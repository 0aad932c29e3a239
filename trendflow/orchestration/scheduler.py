"""Level 1 of the deployment in the process that schedules: opened once, used by one sensor at a time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.knobs import knobs_of
from trendflow.orchestration.processes import this_process
from trendflow.orchestration.submitting import OpenDesk, open_desk
from trendflow.state.errors import Fenced
from trendflow.state.global_manager import GlobalManager
from trendflow.submission.level1 import Level1Queue
from trendflow.submission.message import Message

log = logging.getLogger(__name__)

TURN_WAIT_SEC = 5.0
"""How long a sensor waits for another one; Dagster gives up what takes a minute."""


@dataclass(frozen=True)
class Level1:
    """Level 1, while a sensor has it."""

    manager: GlobalManager
    queue: Level1Queue


@dataclass
class LookedAt:
    """Up to which run reconciliation has looked at those that wait, of which it takes a part at a time.

    `line`: level 1's, by run path; `handed`: those that level 1 handed over, by run path; `dagster_run`: Dagster's
    queue, by its run id. Empty: from the beginning.
    """

    line: str = ""
    handed: str = ""
    dagster_run: str | None = None


class Scheduler:
    """What the sensors of this process share. Nothing in it has to outlive the process.

    `expected`: messages whose run is to be launched and has not been seen in Dagster yet, by run path.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.expected: dict[str, Message] = {}
        self.looked_at = LookedAt()
        self._lock = threading.Lock()
        self._desk: OpenDesk | None = None
        self._level1: Level1 | None = None

    @property
    def desk(self) -> OpenDesk:
        if self._desk is None:
            self._desk = open_desk(self.deployment)
        return self._desk

    @contextmanager
    def turn(self) -> Iterator[Level1 | None]:
        """Level 1 as the log has it, for the length of the block; None while another thread has it.

        Raises `Fenced` when another process has taken it over; the next turn takes it back.
        """
        if not self._lock.acquire(timeout=TURN_WAIT_SEC):
            yield None
            return
        try:
            yield self._current()
        except Fenced:
            log.info("level 1 was taken over meanwhile; it is opened again at the next turn")
            self._level1 = None
            raise
        finally:
            self._lock.release()

    def _current(self) -> Level1:
        if self._level1 is None:
            desk = self.desk
            knobs = {**asdict(desk.limits), **knobs_of(self.deployment.settings)}
            manager = GlobalManager.open(desk.states, holder=this_process(), knobs=knobs)
            queue = Level1Queue(desk.store, desk.inbox, manager, desk.states.clock, desk.admission, limits=desk.limits)
            self._level1 = Level1(manager, queue)
        else:
            self._level1.manager.follow()
        return self._level1


_schedulers: dict[Deployment, Scheduler] = {}


def scheduler_of(deployment: Deployment) -> Scheduler:
    """The scheduler of this process."""
    return _schedulers.setdefault(deployment, Scheduler(deployment))
