"""Compaction: what becomes a file reads as before, what goes was nobody's any more."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.retention.compaction import Compaction, CompactionReport
from trendflow.state.errors import Fenced
from trendflow.state.run_manager import RunManager
from trendflow.state.store import StateStore
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.retention.stored import now
from trendflow_tests.state.runs import IDENTITY, PLAN, SCHEMAS, FixedClock, memory, states_in
from trendflow_tests.submission.desks import DAY, USER, Deployment, draft, submission_id

NOTHING = CompactionReport(videos_evicted=0, run_events=0, global_events=0, submissions=0)


class LaterClock(FixedClock):
    """Ahead of the store's own clock, which stamps objects."""

    def __init__(self, ahead: timedelta) -> None:
        super().__init__()
        self.at = now() + ahead

    def utc(self) -> str:
        return self.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.fixture
def store() -> ObjectStore:
    return memory()


def compact(store: ObjectStore, ahead: timedelta) -> CompactionReport:
    states = states_in(store, LaterClock(ahead))
    return Compaction(store, SCHEMAS, states, holder="upkeep").run()


def run(states: StateStore, name: str) -> RunManager:
    return RunManager.create(states, replace(IDENTITY, run_id=name), "starter", PLAN, holder="api")


def events(store: ObjectStore) -> set[str]:
    """Folders that hold events as objects."""
    return {info.key.partition("/events/")[0] for info in store.list("state") if "/events/" in info.key}


def test_an_empty_store_stays_empty(store: ObjectStore) -> None:
    assert compact(store, timedelta(days=100)) == NOTHING
    assert list(store.list()) == []


def test_logs_of_ended_runs_are_folded_once_they_are_quiet(store: ObjectStore) -> None:
    states = states_in(store, FixedClock())
    run(states, "live").queued()
    run(states, "ended").fail(TrendFlowError("timeout", "It took too long."))
    path = replace(IDENTITY, run_id="ended").run_path
    before, view = states.events(path), states.read_run(path)
    assert compact(store, timedelta(minutes=59)) == NOTHING
    done = compact(store, timedelta(minutes=61))
    assert done.run_events == len(before)
    assert events(store) == {f"state/{replace(IDENTITY, run_id='live').run_path}"}
    assert (states.events(path), states.read_run(path)) == (before, view)
    assert compact(store, timedelta(minutes=61)) == NOTHING


def test_a_damaged_log_is_left_alone_and_holds_up_no_other(store: ObjectStore) -> None:
    states = states_in(store, FixedClock())
    for name in ("damaged", "ended"):
        run(states, name).fail(TrendFlowError("timeout", "It took too long."))
    folder = f"state/{replace(IDENTITY, run_id='damaged').run_path}"
    for info in store.list(folder):
        store.put(info.key, b"{")
    assert compact(store, timedelta(hours=2)).run_events > 0
    assert events(store) == {folder}


def test_level_1_keeps_its_state_and_its_scheduler_is_told(store: ObjectStore) -> None:
    deployment = Deployment(store)
    _, scheduling = deployment.level1()
    scheduling.run_status("upload/my-video/run-1", "queued")
    known = scheduling.document["runs"]
    assert compact(store, timedelta(days=8)).global_events == 3
    # The objects of an hour are left, and with them the news that somebody else has opened level 1.
    assert len(list(store.list("state/_global/events"))) == 1
    with pytest.raises(Fenced):
        scheduling.run_status("upload/my-video/run-1", "running")
    _, again = deployment.level1()
    assert again.document["runs"] == known
    again.run_status("upload/my-video/run-1", "running")
    assert deployment.states.read_global()["runs"]["upload/my-video/run-1"]["status"] == "running"


def test_submissions_stay_a_month_and_while_one_of_their_runs_lives(store: ObjectStore) -> None:
    deployment = Deployment(store)
    deployment.desk.submit(submission_id("list"), USER, [draft("list", 0, 1)])
    queue, manager = deployment.level1()
    deployment.clock.seconds = 20
    queue.step()
    (message,) = queue.take(1)
    month = FixedClock()
    month.seconds = 40 * 86400
    states = states_in(store, month)
    assert Compaction(store, SCHEMAS, states, holder="upkeep").run().submissions == 0, "its run waits"
    _, manager = deployment.level1()
    manager.run_status(message.run_path, "error", error_code="timeout", error="It took too long.")
    month.seconds = 29 * 86400
    assert Compaction(store, SCHEMAS, states, holder="upkeep").run().submissions == 0
    assert deployment.inbox.message_of(message.identity.run_id) == message
    month.seconds = 33 * 86400
    assert Compaction(store, SCHEMAS, states, holder="upkeep").run().submissions == 1
    assert not list(store.list(f"submissions/{DAY}"))
    assert deployment.inbox.place_of(message.identity.run_id) is None
