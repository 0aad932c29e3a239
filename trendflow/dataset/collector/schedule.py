"""When snapshots of a video are due: once at the beginning, then 7, 14 and 21 days after the first one was taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from trendflow.contracts.errors import TrendFlowError


@dataclass(frozen=True)
class SchedulePolicy:
    """`tolerance_hours` as targets have it; `cadence_hours` is the time between two runs of the collector.

    A snapshot is taken by the run nearest to its time, which is up to half a cadence early.
    """

    horizons_days: tuple[int, ...] = (7, 14, 21)
    tolerance_hours: float = 24.0
    cadence_hours: float = 24.0

    def __post_init__(self) -> None:
        steps = [after - before for before, after in zip((0, *self.horizons_days), self.horizons_days, strict=False)]
        if not steps or not 0 < 2 * self.tolerance_hours < 24 * min(steps) or self.cadence_hours <= 0:
            raise TrendFlowError("config_invalid", "Horizons must rise by more than twice their tolerance, from 0 on.")

    @property
    def lead(self) -> timedelta:
        return timedelta(hours=min(self.cadence_hours / 2, self.tolerance_hours))

    @property
    def tolerance(self) -> timedelta:
        return timedelta(hours=self.tolerance_hours)


@dataclass(frozen=True)
class TrackedVideo:
    """A video, the time it was registered, and what was taken of it: days after the first snapshot → time.

    `closed`: days whose snapshot was found impossible. `t0` is the time of the first snapshot.
    """

    video_id: str
    tracked_at: datetime
    t0: datetime | None = None
    closed: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Due:
    """One snapshot to take: of a video, `days` after its first one, at `due_at`, no later than `closes_at`."""

    video_id: str
    days: int
    due_at: datetime
    closes_at: datetime
    state: Literal["due", "missed", "waiting"]


def schedule(videos: Iterable[TrackedVideo], now: datetime, policy: SchedulePolicy) -> list[Due]:
    """Every snapshot that is still open, the most urgent first.

    A first snapshot is never missed: whenever it is taken, it is t₀. A video whose first one is closed is done.
    """
    found = [due for video in videos for due in _open(video, now, policy)]
    return sorted(found, key=lambda due: (due.closes_at, due.video_id))


def counts(dues: Iterable[Due]) -> Mapping[str, int]:
    """How many are due, missed and waiting."""
    states = [due.state for due in dues]
    return {state: states.count(state) for state in ("due", "missed", "waiting")}


def _open(video: TrackedVideo, now: datetime, policy: SchedulePolicy) -> Iterable[Due]:
    if video.t0 is None:
        if 0 not in video.closed:
            yield Due(video.video_id, 0, video.tracked_at, video.tracked_at + policy.tolerance, "due")
        return
    for days in policy.horizons_days:
        if days in video.closed:
            continue
        due_at = video.t0 + timedelta(days=days)
        closes_at = due_at + policy.tolerance
        state: Literal["due", "missed", "waiting"] = "due"
        if now > closes_at:
            state = "missed"
        elif now < due_at - policy.lead:
            state = "waiting"
        yield Due(video.video_id, days, due_at, closes_at, state)
