"""When a run will have ended: what its components took before, what is left of it, and who stands before it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from trendflow.contracts.canonical import utc_text
from trendflow.contracts.costs import WHOLE, CostEstimate
from trendflow.contracts.errors import TrendFlowError

log = logging.getLogger(__name__)

T = TypeVar("T")

COSTS_AGE_SEC = 300.0
WORKERS_AGE_SEC = 15.0


class Estimates:
    """Expectations of one deployment. What they rest on is read again when it is old; nothing is estimated without.

    `costs` reads what executions took, `workers` counts those that live (None where nobody knows), `components` names
    those of a profile.
    """

    def __init__(
        self,
        costs: Callable[[], Sequence[CostEstimate]],
        workers: Callable[[], int | None],
        components: Callable[[str], Collection[str]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._costs: _Kept[dict[str, float]] = _Kept(lambda: typical_seconds(costs()), {}, COSTS_AGE_SEC, now)
        self._workers: _Kept[int | None] = _Kept(workers, None, WORKERS_AGE_SEC, now)
        self._components = components

    def component_sec(self) -> Mapping[str, float]:
        """Expected seconds of components, as far as they are known."""
        return self._costs.value()

    def run_sec(self, profile: str) -> float | None:
        """Expected seconds of a whole run, None when nothing of it is known."""
        known = self.component_sec()
        found = [known[name] for name in self._components(profile) if name in known]
        return sum(found) if found else None

    def starts_at(self, since: str, position: int, running: int, run_sec: float | None) -> str | None:
        """When the run at a `position` (from 1) of the queue begins, None when that is not known.

        Counted from `since` (UTC). While `running` runs are at work, each worker that becomes free takes the next one;
        all runs are taken to last as long as this one.
        """
        workers = self._workers.value()
        if not workers or run_sec is None:
            return None
        ahead = max(0, position - max(0, workers - running))
        return later(since, ahead / workers * run_sec)


def typical_seconds(costs: Sequence[CostEstimate]) -> dict[str, float]:
    """Seconds that one execution of a component usually takes, by the newest series of it."""
    newest: dict[str, CostEstimate] = {}
    for estimate in costs:
        if estimate.part == WHOLE:
            standing = newest.setdefault(estimate.component, estimate)
            if estimate.measured_until > standing.measured_until:
                newest[estimate.component] = estimate
    return {name: found.latency_ms_per_unit * found.units / 1000 for name, found in newest.items()}


def later(moment: str, seconds: float) -> str:
    """A moment (UTC, ISO 8601) so many seconds after another one."""
    return utc_text(datetime.fromisoformat(moment) + timedelta(seconds=seconds))


class _Kept(Generic[T]):
    """A value that is read again when it is `age_sec` old; the one before stays when it cannot be read."""

    def __init__(self, read: Callable[[], T], first: T, age_sec: float, now: Callable[[], float]) -> None:
        self._read, self._value, self._age_sec, self._now = read, first, age_sec, now
        self._due = now()
        self._lock = threading.Lock()

    def value(self) -> T:
        with self._lock:
            if self._now() >= self._due:
                self._due = self._now() + self._age_sec
                try:
                    self._value = self._read()
                except TrendFlowError as error:  # a status without an estimate is better than none
                    log.warning("what estimates rest on cannot be read: %s", error.error_code)
            return self._value
