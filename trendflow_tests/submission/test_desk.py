"""What becomes of the items of a submission, and when nothing is accepted."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.object_store import ObjectStore
from trendflow.submission.admission import NotNow, SubmissionLimits
from trendflow.submission.desk import SubmissionDesk
from trendflow.submission.inbox import Inbox
from trendflow.submission.items import Cached, Duplicate, Exists, New, Refused, Submission
from trendflow.submission.message import Message
from trendflow_tests.state.runs import SCHEMAS, Crash, memory
from trendflow_tests.submission.desks import USER, BreakingForThreads, Deployment, draft, submission_id, video_id

DAY_SEC = 24 * 3600.0


def submit(deployment: Deployment, name: str, *drafts: Message | TrendFlowError) -> Submission:
    return deployment.desk.submit(submission_id(name), USER, drafts)


@pytest.mark.parametrize("cached", [False, True])
def test_a_video_that_is_deleted_while_it_is_submitted_leaves_nothing(cached: bool) -> None:
    """The deletion is complete between the decision about the submission and its storing."""
    behind = Deployment()
    looks: list[set[tuple[str, str]]] = [set(), {("youtube", video_id(1))}]
    desk = SubmissionDesk(
        behind.store, behind.states, behind.inbox, behind.admission, limits=behind.limits, deleted=lambda: looks.pop(0)
    )
    gone, stays, again = draft("a", 0, 1), draft("a", 1, 2), draft("a", 2, 1)
    if cached:
        behind.succeed(draft("e", 0, 1))
    made = desk.submit(submission_id("a"), USER, [gone, stays, again])
    refused = Refused("input_constraint_violated", "The video was deleted.")
    assert made.items == (refused, New(stays), refused)
    assert behind.inbox.read(submission_id("a")) == made
    if cached:  # the erasure removed it before
        behind.store.delete_prefix("result_store")
        behind.store.delete_prefix("index")
    for info in behind.store.list(""):
        assert video_id(1) not in info.key
        assert video_id(1).encode() not in behind.store.get(info.key)


def test_every_decision() -> None:
    deployment = Deployment(deleted={("youtube", video_id(4))})
    earlier = draft("e", 0, 2)
    deployment.succeed(earlier)
    deployment.succeed(draft("f", 0, 5, run_id="taken"))
    broken = TrendFlowError("source_unavailable", "There is no such file.")
    first = draft("a", 0, 1)
    items = submit(
        deployment,
        "a",
        first,
        draft("a", 1, 2),
        draft("a", 2, 1),
        draft("a", 3, 2),
        draft("a", 4, 4),
        draft("a", 5, 5, run_id="taken"),
        broken,
        draft("a", 7, 6),
    ).items
    assert items == (
        New(first),
        Cached(earlier.run_path, "2026-01-02T00:00:00.000Z"),
        Duplicate(0, first.run_path),
        Duplicate(1, earlier.run_path),
        Refused("input_constraint_violated", "The video was deleted here and is not processed again."),
        Exists("taken"),
        Refused("source_unavailable", "There is no such file."),
        New(draft("a", 7, 6)),
    )


def test_only_a_success_that_is_young_enough_answers() -> None:
    deployment = Deployment(limits=SubmissionLimits(cache_ttl_days=2))
    deployment.succeed(draft("e", 0, 1))

    def decision(name: str, seconds: float, **more: Any) -> str:
        deployment.clock.seconds = seconds
        day = f"{20260102 + int(seconds // DAY_SEC)}"
        asked = draft(name, 0, 1, **more)
        return type(deployment.desk.submit(f"{day}-{name}", USER, [asked]).items[0]).__name__

    assert decision("a", 2 * DAY_SEC) == "Cached"
    assert decision("b", 2 * DAY_SEC + 1) == "New"
    assert decision("c", 1.0, metadata={"force_recompute": True}) == "New"
    asked = draft("d", 0, 1)
    assert deployment.desk.submit(submission_id("d"), USER, [asked], cache_ttl_days=0).items == (New(asked),)


def test_the_same_submission_again_gets_the_same_answer() -> None:
    deployment = Deployment(limits=SubmissionLimits(refuse_above=0))
    first = submit(deployment, "a", draft("a", 0, 1), draft("a", 1, 2))
    deployment.succeed(draft("a", 0, 1), seconds=5)
    deployment.clock.seconds = 10
    deployment.free_gb = 0  # nothing new is accepted, but nothing new is asked for
    assert submit(deployment, "a", draft("a", 0, 1), draft("a", 1, 2)) == first
    with pytest.raises(TrendFlowError, match="Something else"):
        submit(deployment, "a", draft("a", 0, 3))


def test_a_run_id_is_given_once() -> None:
    deployment = Deployment()
    assert submit(deployment, "a", draft("a", 0, 1, run_id="mine")).items == (New(draft("a", 0, 1, run_id="mine")),)
    assert submit(deployment, "b", draft("b", 0, 1, run_id="mine")).items == (Exists("mine"),)
    assert submit(deployment, "c", draft("c", 0, 2, run_id="mine")).items == (Exists("mine"),)
    twice = submit(deployment, "d", draft("d", 0, 3, run_id="one"), draft("d", 1, 4, run_id="one"))
    assert twice.items == (New(draft("d", 0, 3, run_id="one")), Exists("one"))
    place = deployment.inbox.place_of("mine")
    assert place is not None
    assert (place.submission_id, place.run_path) == (submission_id("a"), f"youtube/{video_id(1)}/mine")


@pytest.mark.parametrize("name", ["", "a", "20260102-", "20260102-a/b", "20260199-a", "20251230-a", "20260104-a"])
def test_bad_submission_ids(name: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        Deployment().desk.submit(name, USER, [draft("a", 0, 1)])
    assert caught.value.error_code == "input_constraint_violated"


def test_what_does_not_fit_together() -> None:
    deployment = Deployment()
    with pytest.raises(TrendFlowError, match="one item"):
        submit(deployment, "a")
    with pytest.raises(TrendFlowError, match="one user"):
        deployment.desk.submit(submission_id("a"), "user-2", [draft("a", 0, 1)])


def test_a_long_queue_refuses_and_a_short_one_takes_a_long_list() -> None:
    deployment = Deployment(limits=SubmissionLimits(refuse_above=3, capacity=6, retry_after_sec=7))
    submit(deployment, "a", *(draft("a", n, n) for n in range(3)))
    assert deployment.desk.waiting() == 3
    level1, manager = deployment.level1()
    level1.step()
    assert deployment.desk.waiting() == 3
    with pytest.raises(TrendFlowError, match="no place"):
        submit(deployment, "b", *(draft("b", n, 10 + n) for n in range(4)))
    submit(deployment, "c", *(draft("c", n, 20 + n) for n in range(3)))
    with pytest.raises(NotNow) as caught:
        submit(deployment, "d", draft("d", 0, 30))
    assert (caught.value.error_code, caught.value.retry_after_sec) == ("rate_limited", 7)
    assert caught.value.error_class == "transient"
    for run in list(manager.document["runs"]):
        manager.run_status(run, "cancelled")
    assert submit(deployment, "d", draft("d", 0, 30)).messages
    with pytest.raises(TrendFlowError, match="at most 6") as whole:
        Deployment(limits=SubmissionLimits(capacity=6)).desk.submit(
            submission_id("e"), USER, [draft("e", n, n) for n in range(7)]
        )
    assert whole.value.error_class == "contract"


def test_a_full_disk_refuses_new_runs_and_still_answers_from_what_is_there() -> None:
    deployment = Deployment(limits=SubmissionLimits(min_free_gb=20))
    deployment.succeed(draft("e", 0, 1))
    deployment.free_gb = 19.9
    with pytest.raises(NotNow) as caught:
        submit(deployment, "a", draft("a", 0, 2))
    assert caught.value.error_code == "storage_unavailable"
    assert list(deployment.inbox.open()) == []
    assert isinstance(submit(deployment, "b", draft("b", 0, 1)).items[0], Cached)
    deployment.free_gb = 20
    assert submit(deployment, "a", draft("a", 0, 2)).messages


@pytest.mark.parametrize("before", [True, False])
def test_a_submission_that_died_can_be_repeated(before: bool) -> None:
    drafts = [draft("a", 0, 1, run_id="mine"), draft("a", 1, 2)]
    for at in range(3):  # two run ids, then the submission
        store = memory()
        dying = Deployment(BreakingForThreads(store, at, Crash(), before=before))
        with pytest.raises(Crash):
            submit(dying, "a", *drafts)
        alive = Deployment(store)
        assert submit(alive, "a", *drafts).items == tuple(New(message) for message in drafts)
        assert [found.submission_id for found in alive.inbox.open()] == [submission_id("a")]


def test_a_submission_that_died_cannot_be_repeated_as_another_one() -> None:
    store = memory()
    with pytest.raises(Crash):
        submit(Deployment(BreakingForThreads(store, 2, Crash(), before=True)), "a", draft("a", 0, 1), draft("a", 1, 2))
    with pytest.raises(TrendFlowError, match="Something else"):
        submit(Deployment(store), "a", draft("a", 0, 3))
    with pytest.raises(Crash):
        submit(Deployment(BreakingForThreads(store, 1, Crash(), before=True)), "b", draft("b", 0, 1, run_id="mine"))
    moved = submit(Deployment(store), "b", draft("b", 0, 2), draft("b", 1, 1, run_id="mine"))
    assert moved.items == (New(draft("b", 0, 2)), Exists("mine"))


def race(open_store: Callable[[], ObjectStore], names: list[str], run_id: str | None) -> list[Submission]:
    together = Barrier(len(names))

    def one(name: str) -> Submission:
        deployment = Deployment(open_store())
        together.wait()
        return submit(deployment, name, draft(name, 0, 1, run_id=run_id), draft(name, 1, 2))

    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(one, names))


@pytest.fixture(params=["memory", "folder"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], ObjectStore]:
    if request.param == "folder":
        return lambda: ObjectStore.open(tmp_path.as_uri())
    store = memory()
    return lambda: store


def test_many_submit_the_same(open_store: Callable[[], ObjectStore]) -> None:
    answers = race(open_store, ["a"] * 8, run_id="mine")
    assert all(answer == answers[0] for answer in answers)
    assert [type(item) for item in answers[0].items] == [New, New]
    deployment = Deployment(open_store())
    assert deployment.inbox.open() == answers[:1]
    level1, manager = deployment.level1()
    level1.step()
    assert sorted(manager.document["runs"]) == sorted(message.run_path for _, message in answers[0].messages)


def test_many_want_one_run_id(open_store: Callable[[], ObjectStore]) -> None:
    answers = race(open_store, [f"n{number}" for number in range(8)], run_id="mine")
    firsts = [type(answer.items[0]) for answer in answers]
    assert sorted(firsts, key=lambda kind: kind.__name__) == [Exists] * 7 + [New]
    place = Inbox(open_store(), SCHEMAS, Deployment().clock).place_of("mine")
    assert place is not None
    assert place.submission_id == answers[firsts.index(New)].submission_id


def test_a_submission_on_s3(s3_store_url: str, s3_options: dict[str, str]) -> None:
    url = f"{s3_store_url}/{uuid.uuid4().hex}"
    answers = race(lambda: ObjectStore.open(url, s3_options), ["a"] * 4, run_id="mine")
    assert all(answer == answers[0] for answer in answers)
