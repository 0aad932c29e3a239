"""Level 1: windows, batches, order of handing over; the same whatever dies and where."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.state.errors import Fenced
from trendflow.state.global_manager import GlobalManager
from trendflow.state.retention import forget_video
from trendflow.storage.object_store import ObjectStore
from trendflow.submission.admission import SubmissionLimits
from trendflow.submission.level1 import Level1Queue
from trendflow.submission.message import PRIORITIES, Message, Priority
from trendflow_tests.state.runs import BreakingStore, Crash, memory
from trendflow_tests.submission.desks import USER, Deployment, draft, submission_id

Arrival = tuple[float, list[Priority]]
"""A submission: when (s), and the priorities of its runs."""
ARRIVALS: tuple[Arrival, ...] = (
    (0.0, ["normal", "low"]),
    (4.0, ["high"]),
    (9.999, ["normal"]),
    (10.0, ["low", "high", "normal"]),
    (31.5, ["normal"]),
)
WIDE = SubmissionLimits(refuse_above=10_000)


def accept(deployment: Deployment, arrivals: Any = ARRIVALS) -> list[Message]:
    """All messages, in the order of their acceptance."""
    messages: list[Message] = []
    for number, (seconds, priorities) in enumerate(arrivals):
        deployment.clock.seconds = seconds
        name = f"n{number:03d}"
        drafts = [draft(name, n, len(messages) + n, priority=priority) for n, priority in enumerate(priorities)]
        deployment.desk.submit(submission_id(name), USER, drafts)
        messages += drafts
    return messages


def batches(manager: GlobalManager) -> dict[str, Any]:
    return dict(manager.document["batches"])


def windows(times: list[float]) -> list[list[int]]:
    """Runs by window, from the times of their acceptance: the rule once more, in plain words.

    A window opens with the first run that is in none, and takes what comes in less than ten seconds.
    """
    found: list[list[int]] = []
    opened = None
    for number, seconds in enumerate(times):
        if opened is None or seconds - opened >= 10:
            found.append([])
            opened = seconds
        found[-1].append(number)
    return found


def times_of(arrivals: Any) -> list[float]:
    return [seconds for seconds, priorities in arrivals for _ in priorities]


def test_a_run_is_pending_until_its_window_closes() -> None:
    deployment = Deployment()
    (message,) = accept(deployment, [(0.0, ["high"])])
    level1, manager = deployment.level1()
    assert level1.step() == []
    row = manager.document["runs"][message.run_path]
    assert (row["status"], row["priority"], row["batch_id"]) == ("pending", "high", None)
    assert row["submitted_at"] == "2026-01-02T00:00:00.000Z"
    assert level1.take(5) == []
    deployment.clock.seconds = 9.999
    assert level1.step() == []
    deployment.clock.seconds = 10.0
    (batch,) = level1.step()
    assert batches(manager) == {
        batch: {
            "opened_at": "2026-01-02T00:00:00.000Z",
            "closes_at": "2026-01-02T00:00:10.000Z",
            "runs": [message.run_path],
        }
    }
    assert level1.take(5) == [message]
    assert level1.take(5) == [message]
    level1.queued(message)
    level1.queued(message)
    assert level1.take(5) == []
    assert manager.document["runs"][message.run_path]["status"] == "queued"
    assert level1.step() == []


def test_windows_do_not_depend_on_when_they_are_looked_at() -> None:
    slow, quick = Deployment(), Deployment()
    messages = accept(slow)
    slow.clock.seconds = 100
    level1, manager = slow.level1()
    level1.step()
    level2, other = quick.level1()
    for number, arrival in enumerate(ARRIVALS):
        accept_one(quick, number, arrival, messages)
        level2.step()
    quick.clock.seconds = 100
    level2.step()
    found = [batch["runs"] for _, batch in sorted(batches(manager).items())]
    assert found == [[messages[n].run_path for n in window] for window in windows(times_of(ARRIVALS))]
    assert batches(other) == batches(manager)


def accept_one(deployment: Deployment, number: int, arrival: Arrival, messages: list[Message]) -> None:
    deployment.clock.seconds, _ = arrival
    first = sum(len(priorities) for _, priorities in ARRIVALS[:number])
    drafts = messages[first : first + len(arrival[1])]
    deployment.desk.submit(submission_id(f"n{number:03d}"), USER, drafts)


def life(store: ObjectStore, deployment: Deployment) -> list[str]:
    """One process that schedules everything: the runs in the order in which they were handed over."""
    return [message.run_path for message in _handed(Deployment(store, deployment.clock, WIDE).level1())]


def _handed(started: tuple[Level1Queue, GlobalManager]) -> Iterator[Message]:
    level1, manager = started
    level1.step()
    while taken := level1.take(3):
        for message in taken:
            yield message
            level1.queued(message)
    manager.close()


@pytest.mark.parametrize("before", [True, False])
def test_the_same_batches_wherever_the_process_dies(before: bool) -> None:
    counting = BreakingStore(memory(), -1, Crash(), before=before)
    whole = Deployment(counting, limits=WIDE)
    messages = accept(whole)
    whole.clock.seconds = 100
    first_write = counting.writes
    handed = life(counting, whole)
    expected = whole.states.read_global()
    assert sorted(handed) == sorted(message.run_path for message in messages)
    writes = counting.writes - first_write
    assert writes > 3 * len(messages)
    for at in range(writes):
        store = memory()
        deployment = Deployment(store, limits=WIDE)
        accept(deployment)
        deployment.clock.seconds = 100
        with pytest.raises(Crash):
            life(BreakingStore(store, at, Crash(), before=before), deployment)
        life(store, deployment)
        state = deployment.states.read_global()
        assert state["batches"] == expected["batches"]
        assert state["runs"] == expected["runs"]
        assert deployment.inbox.open() == []


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(0, 15), st.lists(st.sampled_from(PRIORITIES), min_size=1, max_size=5)),
        min_size=1,
        max_size=8,
    )
)
def test_fifo_inside_a_class_and_nobody_starves(gaps: list[tuple[int, list[Priority]]]) -> None:
    arrivals, now = list[Arrival](), 0.0
    for gap, priorities in gaps:
        now += gap
        arrivals.append((now, priorities))
    deployment = Deployment(limits=WIDE)
    messages = accept(deployment, arrivals)
    deployment.clock.seconds = now + 10
    handed = life(deployment.store, deployment)
    assert sorted(handed) == sorted(message.run_path for message in messages)
    for name in PRIORITIES:
        mine = [message.run_path for message in messages if message.priority == name]
        assert [path for path in handed if path in set(mine)] == mine
    is_low = [any(message.run_path == path and message.priority == "low" for message in messages) for path in handed]
    last_low = max((place for place, low in enumerate(is_low) if low), default=-1)
    longest = [len(list(run)) for low, run in groupby(is_low[: last_low + 1]) if not low]
    assert max(longest, default=0) <= 9


def test_late_submissions_open_a_window_of_their_own() -> None:
    """Accepted in a window, stored when it was over: the batch that was formed stays as it is."""
    deployment = Deployment()
    accept(deployment, [(0.0, ["normal"])])
    level1, manager = deployment.level1()
    deployment.clock.seconds = 10
    level1.step()
    formed = batches(manager)
    deployment.clock.seconds = 5
    deployment.desk.submit(submission_id("late"), USER, [draft("late", 0, 77)])
    deployment.clock.seconds = 14
    assert level1.step() == []
    deployment.clock.seconds = 15
    assert len(level1.step()) == 1
    assert formed.items() < batches(manager).items()


def test_a_host_whose_clock_is_ahead_waits_one_window_and_no_longer() -> None:
    ahead = Deployment()
    accept(ahead, [(3600.0, ["normal"])])
    here = Deployment(ahead.store)
    here.clock.seconds = 1000
    level1, manager = here.level1()
    assert level1.step() == []
    here.clock.seconds = 1009.999
    assert level1.step() == []
    here.clock.seconds = 1010
    (batch,) = level1.step()
    assert batches(manager)[batch]["opened_at"] == "2026-01-02T01:00:00.000Z", "as it was accepted"


def test_a_long_list_is_taken_in_step_by_step_and_its_batches_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    arrivals: list[Arrival] = [(0.0, ["normal"] * 3), (9.0, ["low"] * 4), (10.0, ["normal"]), (30.0, ["normal"])]
    whole, parts = Deployment(limits=WIDE), Deployment(limits=WIDE)
    for deployment in (whole, parts):
        accept(deployment, arrivals)
        deployment.clock.seconds = 100
    level1, manager = whole.level1()
    assert len(level1.step()) == 3
    monkeypatch.setattr("trendflow.submission.level1.TAKEN_AT_ONCE", 2)
    level1, other = parts.level1()
    known, formed = [], []
    for _ in range(5):
        formed.append(len(level1.step()))
        known.append(len(other.document["runs"]))
    assert known == [2, 4, 6, 8, 9]
    assert formed == [0, 0, 0, 2, 1], "a window is closed when all that was accepted in it is known"
    assert batches(other) == batches(manager)
    assert parts.inbox.open() == []


def test_the_line_is_counted_once_for_all_that_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = Deployment(limits=WIDE)
    accept(deployment, [(0.0, ["normal"] * 6)])
    deployment.clock.seconds = 10
    level1, manager = deployment.level1()
    level1.step()
    taken = level1.take(6)
    counts: list[int] = []
    lines = Level1Queue._lines

    def count(self: Level1Queue) -> Any:
        found = lines(self)
        counts.append(sum(map(len, found.values())))
        return found

    monkeypatch.setattr(Level1Queue, "_lines", count)
    for message in taken[:3]:
        level1.queued(message)
    manager.run_status(taken[3].run_path, "cancelled")
    level1.queued(taken[4])
    assert counts == [6, 2], "anew after somebody else took one out of it"


def test_a_run_that_ended_is_never_taken_in_again() -> None:
    deployment = Deployment()
    (message,) = accept(deployment, [(0.0, ["normal"])])
    level1, manager = deployment.level1()
    deployment.clock.seconds = 10
    level1.step()
    manager.run_status(message.run_path, "success")
    day = submission_id("n000")[:8]
    deployment.store.delete(f"submissions/{day}/{submission_id('n000')}.taken")  # as if it had died before
    level1.step()
    assert manager.document["runs"][message.run_path]["status"] == "success"
    assert level1.take(5) == []


def test_nothing_is_handed_over_while_the_disk_is_full() -> None:
    deployment = Deployment()
    (message,) = accept(deployment, [(0.0, ["normal"])])
    deployment.clock.seconds = 10
    level1, _ = deployment.level1()
    level1.step()
    deployment.free_gb = 19.9
    assert level1.take(5) == []
    deployment.free_gb = 20.0
    assert level1.take(5) == [message]


def test_runs_from_elsewhere_are_left_alone() -> None:
    deployment = Deployment()
    level1, manager = deployment.level1()
    manager.run_status("upload/my-video/run-1", "pending")
    deployment.clock.seconds = 100
    assert level1.step() == []
    assert level1.take(5) == []


def test_a_deleted_video_is_not_handed_over() -> None:
    deployment = Deployment()
    first, second = accept(deployment, [(0.0, ["normal", "normal"])])
    deployment.clock.seconds = 10
    level1, _ = deployment.level1()
    level1.step()
    deployment.inbox.forget("youtube", first.identity.video_id)
    later, _ = deployment.level1()
    assert later.take(5) == [second]


def test_one_process_schedules() -> None:
    deployment = Deployment()
    accept(deployment, [(0.0, ["normal"])])
    earlier, _ = deployment.level1()
    later, _ = deployment.level1()
    with pytest.raises(Fenced):
        earlier.step()
    deployment.clock.seconds = 10
    assert len(later.step()) == 1


def test_a_submission_outlives_the_forgetting_of_a_video() -> None:
    """Another process forgets a video, and with it the event by which the scheduler would see that it was replaced."""
    deployment = Deployment()
    (gone,) = accept(deployment, [(0.0, ["normal"])])
    queue, manager = deployment.level1()
    queue.step()
    platform_id, video_id, _ = gone.run_path.split("/")
    forget_video(deployment.states, platform_id, video_id, holder="erasure")
    new = draft("later", 0, 7)
    deployment.desk.submit(submission_id("later"), USER, [new])
    with pytest.raises(Fenced):
        queue.step()
    assert [submission.submission_id for submission in deployment.inbox.open()] == [submission_id("later")]
    queue, manager = deployment.level1()
    queue.step()
    assert list(manager.document["runs"]) == [new.run_path]
    assert deployment.inbox.open() == []
