"""How long a run and its components may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.deadline import OutOfTime, run_within

if TYPE_CHECKING:
    from trendflow.orchestration.runs import RunContext

T = TypeVar("T")
Scope = Literal["component", "run"]

MIN_RUN_LIMIT_S = 2 * 3600.0
RUN_LIMIT_PER_SECOND = 6.0


class RunClock:
    """Time since the current attempt at a run began in this process. Until `start` it stands still at zero."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._started: float | None = None

    def start(self) -> None:
        """Begin a new attempt: the time before a stopped run was resumed does not count."""
        self._started = self._now()

    @property
    def elapsed_s(self) -> float:
        return 0.0 if self._started is None else self._now() - self._started


def run_limit_s(duration_sec: float | None) -> float:
    """max(2 h, 6 × duration) in seconds; 2 h while the duration is not known yet."""
    return max(MIN_RUN_LIMIT_S, RUN_LIMIT_PER_SECOND * (duration_sec or 0.0))


@dataclass(frozen=True)
class TimeLimit:
    """What a component may still take: its own limit, or what is left of the run's if that is less."""

    component: str
    scope: Scope
    limit_s: float
    left_s: float

    def enforce(self, work: Callable[[], T]) -> T:
        """The result of `work()`. Raises `timeout` when it takes longer; see `run_within` for what that can stop."""
        try:
            return run_within(self.left_s, work)
        except OutOfTime as exc:
            raise self.error() from exc

    def error(self) -> TrendFlowError:
        who = self.component if self.scope == "component" else "The run"
        return TrendFlowError(
            "timeout", f"{who} took longer than {self.limit_s:g} s.", limit_s=self.limit_s, scope=self.scope
        )


def time_limit(run: RunContext, component: str, manifest: Mapping[str, Any]) -> TimeLimit:
    """The limit that holds for `component` from now on. Raises `timeout` when the run has used up its own."""
    own = run.deployment.graph.components[component].timeout_s
    whole = run_limit_s(manifest["run"]["source"]["duration_sec"])
    left = whole - run.clock.elapsed_s
    if left <= own:
        limit = TimeLimit(component, "run", whole, left)
        if left <= 0:
            raise limit.error()
        return limit
    return TimeLimit(component, "component", own, own)


def ended_the_run(error: TrendFlowError) -> bool:
    """Whether `error` says that the run is over its limit, so that no further try of a component can help."""
    return error.error_code == "timeout" and error.detail.get("scope") == "run"
