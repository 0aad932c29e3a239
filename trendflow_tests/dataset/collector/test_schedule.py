"""What is due when: nothing too early, nothing too late, the run nearest to the time takes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.collector.schedule import SchedulePolicy, TrackedVideo, counts, schedule
from trendflow.dataset.targets import TargetPolicy

T0 = datetime(2026, 1, 10, 12, 0, 7, tzinfo=UTC)
VIDEO = TrackedVideo("abcdefghij0", T0 - timedelta(hours=1), T0, frozenset({0}))
POLICY = SchedulePolicy()
SECOND = timedelta(seconds=1)


def states(now: datetime, video: TrackedVideo = VIDEO, policy: SchedulePolicy = POLICY) -> dict[int, str]:
    return {due.days: due.state for due in schedule([video], now, policy)}


@pytest.mark.parametrize("days", [7, 14, 21])
@pytest.mark.parametrize(
    ("offset", "state"),
    [
        (timedelta(hours=-12) - SECOND, "waiting"),
        (timedelta(hours=-12), "due"),
        (timedelta(0), "due"),
        (timedelta(hours=24), "due"),
        (timedelta(hours=24) + SECOND, "missed"),
    ],
)
def test_the_window_of_each_due_time(days: int, offset: timedelta, state: str) -> None:
    assert states(T0 + timedelta(days=days) + offset)[days] == state


def test_a_frequent_collector_is_hardly_early() -> None:
    policy = SchedulePolicy(cadence_hours=1)
    assert states(T0 + timedelta(days=7, minutes=-31), policy=policy)[7] == "waiting"
    assert states(T0 + timedelta(days=7, minutes=-29), policy=policy)[7] == "due"


def test_a_registered_video_is_due_at_once_and_for_ever() -> None:
    fresh = TrackedVideo("abcdefghij0", T0)
    for now in (T0, T0 + timedelta(days=400)):
        assert states(now, fresh) == {0: "due"}


def test_what_is_answered_is_not_due_again() -> None:
    done = TrackedVideo("abcdefghij0", T0, T0, frozenset({0, 7}))
    assert states(T0 + timedelta(days=7), done) == {14: "waiting", 21: "waiting"}
    gone = TrackedVideo("abcdefghij0", T0, None, frozenset({0}))
    assert states(T0 + timedelta(days=7), gone) == {}


@given(st.integers(0, 30 * 24 * 60))
def test_at_most_one_snapshot_of_a_video_is_due_at_a_time(minutes: int) -> None:
    plan = schedule([VIDEO], T0 + timedelta(minutes=minutes), POLICY)
    assert counts(plan)["due"] <= 1


@given(st.integers(1, 24 * 60 - 1), st.integers(1, 24))
def test_a_collector_that_never_fails_misses_nothing_and_stays_within_the_tolerance(start: int, hours: int) -> None:
    """Whenever the runs fall, each target finds a snapshot that `TargetPolicy` accepts."""
    policy, taken, now = SchedulePolicy(cadence_hours=hours), {}, T0 + timedelta(minutes=start)
    while now < T0 + timedelta(days=23):
        video = TrackedVideo("abcdefghij0", T0, T0, frozenset({0, *taken}))
        taken |= {due.days: now - due.due_at for due in schedule([video], now, policy) if due.state == "due"}
        now += timedelta(hours=hours)
    assert set(taken) == set(TargetPolicy().horizons_days)
    tolerance = timedelta(hours=TargetPolicy().horizon_tolerance_hours)
    assert all(abs(offset) <= min(timedelta(hours=hours / 2), tolerance) for offset in taken.values())


def test_the_most_urgent_come_first() -> None:
    videos = [
        TrackedVideo("zzzzzzzzzz0", T0, T0, frozenset({0})),
        TrackedVideo("aaaaaaaaaa0", T0 + timedelta(hours=3), T0 + timedelta(hours=3), frozenset({0})),
    ]
    plan = schedule(videos, T0 + timedelta(days=7), POLICY)
    assert [due.video_id for due in plan if due.state == "due"] == ["zzzzzzzzzz0", "aaaaaaaaaa0"]


@pytest.mark.parametrize(
    "change", [{"horizons_days": ()}, {"horizons_days": (7, 8)}, {"tolerance_hours": 0}, {"cadence_hours": 0}]
)
def test_a_policy_that_cannot_be_meant_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(TrendFlowError):
        SchedulePolicy(**change)  # type: ignore[arg-type]
