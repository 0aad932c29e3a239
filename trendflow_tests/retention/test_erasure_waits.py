"""No receipt while somebody still writes about the video, and nothing of it goes that he needs to learn to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.retention.erasure import PATIENCE_S, Eraser
from trendflow.retention.housekeeping import DeletionDesk, clean_up
from trendflow.retention.policy import RetentionPolicy
from trendflow.retention.traces import StillAtWork
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.tombstones import Tombstones
from trendflow_tests.retention.known import DATASET, GONE, KEPT, SECRET, contents, fill, traces
from trendflow_tests.retention.stored import make_run, now, stamp
from trendflow_tests.state.runs import SCHEMAS, FixedClock
from trendflow_tests.submission.desks import USER, Deployment, draft, submission_id

PAIR, OTHER = ("youtube", GONE), ("youtube", KEPT)
LEFT = {f"datasets/{DATASET}/dataset.parquet"}


@pytest.fixture
def store() -> ObjectStore:
    made = ObjectStore.open("memory://")
    fill(made)
    return made


@dataclass
class Working:
    """Runs of videos that work until somebody removes them from `videos`; `asked` lists who was told to stop."""

    videos: set[str]
    asked: list[str] = field(default_factory=list)

    def stop(self, platform_id: str, video_id: str) -> int:
        self.asked.append(video_id)
        return int(video_id in self.videos)


@dataclass
class Busy:
    """A history whose `forget` meets somebody at work, `times` times."""

    meet: Callable[[], object]
    times: int

    def count(self, platform_id: str, video_id: str) -> int:
        return 0

    def forget(self, platform_id: str, video_id: str) -> None:
        if self.times > 0:
            self.times -= 1
            self.meet()


def patient(store: ObjectStore, working: Working, wait: Callable[[float], object]) -> Eraser:
    return Eraser(store, SCHEMAS, SECRET, clock=FixedClock(), executions=working, wait=wait)


def receipts(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list("receipts")]


def test_nothing_goes_before_the_last_run_has_stopped(store: ObjectStore) -> None:
    before, working, waits = contents(store), Working({GONE}), list[float]()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        after = contents(store)
        assert {key: after.get(key) for key in before} == before
        assert receipts(store) == []
        assert any(b"cancel_requested" in after[key] for key in set(after) - set(before))
        if len(waits) == 3:
            working.videos.clear()

    receipt = patient(store, working, wait).erase(*PAIR)
    assert len(waits) == 3
    assert set(working.asked) == {GONE}
    assert receipts(store) == [f"receipts/{receipt['tombstone_id']}.json"]
    assert traces(store, {GONE.encode()}) == LEFT


def test_a_run_that_does_not_stop_leaves_the_deletion_pending_and_whoever_repeats_it_finishes_it(
    store: ObjectStore,
) -> None:
    before, working, waits = contents(store), Working({GONE}), list[float]()
    eraser = patient(store, working, waits.append)
    with pytest.raises(StillAtWork, match="still at work") as caught:
        eraser.erase(*PAIR)
    assert (caught.value.error_code, caught.value.error_class) == ("timeout", "transient")
    assert sum(waits) == PATIENCE_S
    after = contents(store)
    assert {key: after.get(key) for key in before} == before
    assert eraser.pending(*PAIR)
    assert receipts(store) == []
    assert PAIR in Tombstones.load(store, SECRET)
    working.videos.clear()
    receipt = eraser.erase(*PAIR)
    assert receipt["live_runs"] == 1, "as it was found at first"
    assert traces(store, {GONE.encode()}) == LEFT


def test_a_clean_up_finishes_the_others_and_touches_nothing_of_what_is_pending(store: ObjectStore) -> None:
    working, waits = Working({GONE}), list[float]()
    eraser = patient(store, working, waits.append)
    desk = DeletionDesk(eraser)
    pending, done = (desk.request(*video, by="user-1") for video in (PAIR, OTHER))
    mine = {key: data for key, data in contents(store).items() if f"/{GONE}/" in key}

    def cleaned() -> int:
        at = stamp(now() + timedelta(days=90))
        deleted = Tombstones.load(store, SECRET)
        return clean_up(store, RetentionPolicy(), deleted, eraser, dry_run=False, now=at).deletions

    assert cleaned() == 1
    assert sum(waits) == PATIENCE_S, "all of them are waited for together"
    after = contents(store)
    assert {key: after.get(key) for key in mine} == mine
    reports = {name: desk.report(name) for name in (pending, done)}
    assert {name: report and report["status"] for name, report in reports.items()} == {
        pending: "pending",
        done: "complete",
    }
    working.videos.clear()
    assert cleaned() == 1
    assert traces(store, {GONE.encode()}) == LEFT


def test_what_is_written_while_everything_goes_goes_too(store: ObjectStore) -> None:
    busy = Busy(lambda: make_run(store, "late", video_id=GONE), times=1)
    Eraser(store, SCHEMAS, SECRET, clock=FixedClock(), history=busy).erase(*PAIR)
    assert busy.times == 0
    assert traces(store, {GONE.encode()}) == LEFT


def test_no_receipt_while_somebody_goes_on_writing(store: ObjectStore) -> None:
    busy = Busy(lambda: make_run(store, f"late-{busy.times}", video_id=GONE), times=100)
    eraser = Eraser(store, SCHEMAS, SECRET, clock=FixedClock(), history=busy)
    with pytest.raises(StillAtWork):
        eraser.erase(*PAIR)
    assert (eraser.pending(*PAIR), receipts(store)) == (True, [])
    busy.times = 0
    (receipt,) = eraser.continue_all()
    assert receipts(store) == [f"receipts/{receipt['tombstone_id']}.json"]


def test_no_receipt_while_the_history_keeps_a_run(store: ObjectStore) -> None:
    def keep() -> None:
        raise StillAtWork.on_a_video()

    busy = Busy(keep, times=2)
    eraser = Eraser(store, SCHEMAS, SECRET, clock=FixedClock(), history=busy)
    with pytest.raises(StillAtWork):
        eraser.erase(*PAIR)
    assert eraser.continue_all() == []
    assert (eraser.pending(*PAIR), receipts(store)) == (True, [])
    assert len(eraser.continue_all()) == 1


def test_other_failures_are_not_taken_for_work(store: ObjectStore) -> None:
    def fail() -> None:
        raise TrendFlowError("storage_unavailable", "The broker does not answer.")

    eraser = Eraser(store, SCHEMAS, SECRET, clock=FixedClock(), history=Busy(fail, times=2))
    with pytest.raises(TrendFlowError, match="does not answer"):
        eraser.erase(*PAIR)
    with pytest.raises(TrendFlowError, match="does not answer"):
        eraser.continue_all()


@pytest.mark.parametrize("taken", [False, True])
def test_a_video_whose_turn_has_not_come_never_gets_one(taken: bool) -> None:
    store = ObjectStore.open("memory://")
    deployment = Deployment(store)
    drafts = [draft("list", place, number) for place, number in enumerate((1, 2))]
    submitted = deployment.desk.submit(submission_id("list"), USER, drafts)
    run_ids = [message.identity.run_id for _, message in submitted.messages]
    if taken:  # level 1 knows them, and none was given out
        queue, manager = deployment.level1()
        queue.step()
        manager.close()
    assert traces(store, {GONE.encode()})
    Eraser(store, SCHEMAS, SECRET, clock=deployment.clock).erase(*PAIR)
    assert traces(store, {GONE.encode(), run_ids[0].encode()}) == set()
    queue, manager = deployment.level1()
    queue.step()
    deployment.clock.seconds += 60
    queue.step()
    assert [message.identity.video_id for message in queue.take(5)] == [KEPT]
    manager.close()
