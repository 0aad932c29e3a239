"""Level 1: runs, batches and workers of the deployment."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import validate_document
from trendflow.state import level1
from trendflow.state.checkpoints import Checkpoints
from trendflow.state.errors import Fenced, IllegalTransition
from trendflow.state.events import Event
from trendflow.state.file_manager import FileManager
from trendflow.state.global_manager import GlobalManager
from trendflow.state.journal import Journal, LogPart
from trendflow.state.replay import apply_to_deployment, no_deployment, replay_deployment
from trendflow.state.retention import forget_video
from trendflow.state.store import StateStore
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.state.naive import RUN_STATES
from trendflow_tests.state.runs import SCHEMAS, FixedClock, memory, states_in

FILE = "state/_global/state_level1_global.json"
EXPORT = "state/_global/state_events.jsonl"
BACKWARDS = {("queued", "pending"), *((at, to) for at in ("running", "recovering") for to in ("pending", "queued"))}
WORKER = {"id": "worker-1", "device": "cuda:0"}


def path(number: int) -> str:
    return f"upload/my-video/run-{number}"


def log_of(states: StateStore) -> list[Event]:
    return list(states.global_log().journal.read().events)


def statuses(events: list[Event], run: str) -> list[str | None]:
    return [event.to for event in events if event.type == "run_status" and event.subject == run]


def test_whoever_reads_level_1_does_not_list_what_lies_before_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    store = memory()
    states = states_in(store)
    manager = GlobalManager.open(states, holder="daemon")
    for number in range(40):
        manager.run_status(path(number), "pending")
    manager.checkpoint()
    manager.run_status(path(40), "pending")
    listed: list[str] = []
    list_all = ObjectStore.list

    def note(self: ObjectStore, *arguments: Any, **more: Any) -> Any:
        for info in list_all(self, *arguments, **more):
            listed.append(info.key)
            yield info

    monkeypatch.setattr(ObjectStore, "list", note)
    assert len(states.read_global()["runs"]) == 41
    assert len(listed) == 2, "the event that the file ends with, and the one after it"


def test_what_was_not_seen_in_between_is_recorded(states: StateStore) -> None:
    manager = GlobalManager.open(states, holder="daemon")
    manager.run_status(path(1), "success")
    manager.run_status(path(1), "success")
    manager.run_status(path(2), "error", error="Too slow.", error_code="timeout")
    manager.run_status(path(1), "queued")
    assert manager.document["runs"][path(1)]["started_at"] is None
    manager.run_status(path(1), "running", worker=WORKER)
    assert statuses(log_of(states), path(1)) == ["pending", "queued", "running", "success", "queued", "running"]
    assert statuses(log_of(states), path(2)) == ["pending", "error"]
    with pytest.raises(IllegalTransition):
        manager.run_status(path(1), "pending")
    assert statuses(log_of(states), path(1))[-1] == "running"


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(RUN_STATES), st.booleans()), max_size=20), st.data())
def test_files_and_log_say_the_same(seen: list[tuple[int, Any, bool]], data: st.DataObject) -> None:
    states = states_in(memory())
    manager = GlobalManager.open(states, holder="daemon", knobs={"max_parallel_videos": 2})
    expected: dict[str, str] = {}
    for number, status, takeover in seen:
        if takeover:
            manager = GlobalManager.open(states, holder="daemon")
        before = expected.get(path(number))
        try:
            manager.run_status(path(number), status, worker={**WORKER, "id": f"worker-{number % 2}"})
        except IllegalTransition:
            assert (before, status) in BACKWARDS
        else:
            assert (before, status) not in BACKWARDS
            expected[path(number)] = status
    steps = [no_deployment()]
    for event in log_of(states):
        steps.append(apply_to_deployment(steps[-1], event))
    final = steps[-1]["global"]
    assert {run: row["status"] for run, row in final["runs"].items()} == expected
    assert final["knobs"] == {"max_parallel_videos": 2}
    running = sorted(run for row in final["workers"].values() for run in row["running"])
    assert set(running) <= {run for run, status in expected.items() if status in ("running", "recovering")}
    assert len(set(running)) == len(running)
    start = data.draw(st.integers(0, len(steps) - 1))
    stored = json.loads(json.dumps(steps[start]["global"]))
    assert replay_deployment({"global": stored}, log_of(states)) == steps[-1]
    manager.close()
    read = states.read_global()
    assert validate_document(SCHEMAS, "state_global_v1", read) == []
    waiting = [run for run, row in read["runs"].items() if row["queue_position"] is not None]
    assert set(waiting) == {run for run, status in expected.items() if status in ("pending", "queued")}


def test_places_in_the_queue(states: StateStore, clock: FixedClock) -> None:
    manager = GlobalManager.open(states, holder="daemon")
    for number, priority in enumerate(("low", "normal", "high", "normal")):
        clock.seconds += 1
        manager.run_status(path(number), "queued", priority=priority)
    places = {run: row["queue_position"] for run, row in states.read_global()["runs"].items()}
    assert places == {path(2): 1, path(1): 2, path(3): 3, path(0): 4}
    manager.run_status(path(2), "running", worker=WORKER)
    places = {run: row["queue_position"] for run, row in states.read_global()["runs"].items()}
    assert places == {path(2): None, path(1): 1, path(3): 2, path(0): 3}


def test_batches_and_workers(states: StateStore, clock: FixedClock) -> None:
    manager = GlobalManager.open(states, holder="daemon")
    for number in (1, 2):
        manager.run_status(path(number), "pending", submitted_at="2026-01-01T23:59:59.000Z")
    window = {"opened_at": "2026-01-02T00:00:00.000Z", "closes_at": "2026-01-02T00:00:10.000Z"}
    manager.assign_batch("batch-1", [path(1), path(2)], **window)
    manager.run_status(path(1), "running", worker=WORKER, stage="visual")
    document = states.read_global()
    assert document["batches"] == {"batch-1": {**window, "runs": [path(1), path(2)]}}
    row = document["runs"][path(1)]
    assert (row["batch_id"], row["stage"], row["submitted_at"]) == ("batch-1", "visual", "2026-01-01T23:59:59.000Z")
    assert document["workers"]["worker-1"]["running"] == [path(1)]
    manager.run_status(path(1), "recovering")
    manager.run_status(path(1), "running", worker={"id": "worker-2", "device": None})
    workers = states.read_global()["workers"]
    assert (workers["worker-1"]["running"], workers["worker-2"]["running"]) == ([], [path(1)])
    manager.run_status(path(1), "success")
    assert states.read_global()["workers"]["worker-2"]["running"] == []


def test_what_ended_long_ago_is_forgotten(
    states: StateStore, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(level1, "KEPT", 3)
    manager = GlobalManager.open(states, holder="daemon")
    manager.run_status(path(0), "running", worker=WORKER)
    for number in range(1, 6):
        clock.seconds += 1
        manager.run_status(path(number), "pending")
        manager.assign_batch(
            f"batch-{number}",
            [path(number)],
            opened_at="2026-01-02T00:00:00.000Z",
            closes_at="2026-01-02T00:00:10.000Z",
        )
        manager.run_status(path(number), "success", worker={"id": f"worker-{number}0", "device": None})
    document = states.read_global()
    assert set(document["runs"]) == {path(number) for number in (0, 3, 4, 5)}
    assert set(document["batches"]) == {"batch-3", "batch-4", "batch-5"}
    assert set(document["workers"]) == {"worker-1", "worker-30", "worker-40", "worker-50"}


def test_only_the_last_manager_writes(states: StateStore) -> None:
    first = GlobalManager.open(states, holder="daemon")
    first.run_status(path(1), "queued")
    second = GlobalManager.open(states, holder="daemon")
    for attempt in (lambda: first.run_status(path(1), "running"), first.close):
        with pytest.raises(Fenced):
            attempt()
    assert second.document["runs"][path(1)]["status"] == "queued"


def test_the_log_is_folded_and_its_old_part_dropped(states: StateStore, store: ObjectStore, clock: FixedClock) -> None:
    manager = GlobalManager.open(states, holder="daemon")
    for number in range(5):
        clock.seconds = number * 3600.0
        manager.run_status(path(number), "queued")
    before = states.read_global()
    assert manager.fold("2026-01-02T02:30:00.000Z") == 11
    lines = [json.loads(line) for line in store.get(EXPORT).splitlines()]
    assert [line["subject"] for line in lines] == [path(3)] * 2 + [path(4)] * 2
    assert states.read_global() == before
    manager.run_status(path(0), "running", worker=WORKER)
    manager.fold("2026-01-02T02:30:00.000Z")
    assert GlobalManager.open(states, holder="daemon").document["runs"][path(0)]["status"] == "running"
    store.delete(FILE)
    with pytest.raises(TrendFlowError) as caught:
        states.read_global()
    assert caught.value.error_code == "artifact_validation_failed"


def test_a_manager_notices_that_a_video_was_forgotten_behind_its_back(
    states: StateStore, store: ObjectStore, clock: FixedClock
) -> None:
    """Forgetting folds the whole log, with the event that would have told the manager that it was replaced."""
    followed, wrote = (GlobalManager.open(states, holder="daemon") for _ in range(2))
    wrote.run_status(path(1), "queued")
    with pytest.raises(Fenced):
        followed.follow()
    forget_video(states, "upload", "another-video", holder="erasure")
    assert [info.key for info in store.list("state/_global/events")] == []
    for attempt in (lambda: wrote.run_status(path(2), "queued"), wrote.follow, wrote.close):
        with pytest.raises(Fenced):
            attempt()
    assert list(states.read_global()["runs"]) == [path(1)]
    assert [info.key for info in store.list("state/_global/events")] == []
    following = GlobalManager.open(states, holder="daemon")
    forget_video(states, "upload", "another-video", holder="erasure")
    with pytest.raises(Fenced):
        following.follow()


@pytest.mark.parametrize("known", [False, True])
def test_a_manager_that_opens_level_1_while_a_video_is_forgotten(states: StateStore, known: bool) -> None:
    """It neither loses what it needs, nor brings the video back when it opened level 1 before that was without it."""
    manager = GlobalManager.open(states, holder="daemon")
    for number in range(5):
        manager.run_status(path(number), "queued")
    manager.run_status("upload/another-video/run", "queued")
    manager.checkpoint()
    opened: list[GlobalManager] = []

    def meanwhile() -> None:
        if not opened:
            opened.append(GlobalManager.open(states, holder="daemon"))
            opened[0].run_status(path(9), "queued")

    with pytest.MonkeyPatch.context() as patch:
        where = (Checkpoints, "write") if known else (Journal, "fold")
        patch.setattr(*where, before(getattr(*where), meanwhile))
        forget_video(states, "upload", "another-video", holder="erasure")
    if known:
        with pytest.raises(Fenced):
            opened[0].checkpoint()
    else:
        opened[0].checkpoint()
    expected = sorted(map(path, (0, 1, 2, 3, 4, 9)))
    assert sorted(states.read_global()["runs"]) == expected
    assert sorted(GlobalManager.open(states, holder="daemon").document["runs"]) == expected
    forget_video(states, "upload", "video-9", holder="erasure")  # any later one


def test_a_manager_that_read_level_1_before_a_video_was_forgotten_and_starts_while_it_is(states: StateStore) -> None:
    manager = GlobalManager.open(states, holder="daemon")
    manager.run_status(path(1), "queued")
    manager.run_status("upload/another-video/run", "queued")
    manager.checkpoint()
    start, fold = FileManager.start, Journal.fold

    def starting(file: FileManager, data: dict[str, Any]) -> bool:
        if data["holder"] != "slow":
            return start(file, data)
        started: list[bool] = []

        def meanwhile(journal: Journal, *arguments: Any, **named: Any) -> int:
            started.append(start(file, data))
            patch.undo()
            return fold(journal, *arguments, **named)

        patch.setattr(Journal, "fold", meanwhile)
        forget_video(states, "upload", "another-video", holder="erasure")
        return started[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileManager, "start", starting)
        slow = GlobalManager.open(states, holder="slow")
    slow.run_status(path(2), "queued")
    slow.checkpoint()
    assert sorted(states.read_global()["runs"]) == [path(1), path(2)]


def test_a_fold_that_a_removal_overtakes_brings_nothing_back(states: StateStore) -> None:
    manager = GlobalManager.open(states, holder="daemon")
    manager.run_status("upload/another-video/run", "queued")
    read, overtaken = Journal.read, list[bool]()

    def slow(journal: Journal, first: int = 1) -> LogPart:
        part = read(journal, first)
        if not overtaken:
            overtaken.append(True)
            forget_video(states, "upload", "another-video", holder="erasure")
        return part

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "read", slow)
        states.global_log().journal.fold("2000")
    assert overtaken
    exported = states.global_log().journal.export()
    assert all("another-video" not in str(event) for event in exported)
    assert list(GlobalManager.open(states, holder="daemon").document["runs"]) == []


def test_an_export_that_was_read_before_a_video_was_forgotten_is_made_anew(
    states: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = GlobalManager.open(states, holder="daemon")
    manager.run_status("upload/another-video/run", "queued")
    manager.fold("2000")  # so that there is an export
    manager.run_status(path(1), "queued")
    put, overtaken = ObjectStore.put_if_match, list[bool]()

    def slow(store: ObjectStore, key: str, data: Any, etag: str) -> bool:
        if key == EXPORT and not overtaken:
            overtaken.append(True)
            forget_video(states, "upload", "another-video", holder="erasure")
        return put(store, key, data, etag)

    monkeypatch.setattr(ObjectStore, "put_if_match", slow)
    states.global_log().journal.fold("2000")
    assert overtaken
    assert b"another-video" not in states._store.get(EXPORT)
    assert list(GlobalManager.open(states, holder="daemon").document["runs"]) == [path(1)]


def before(act: Callable[..., Any], first: Callable[[], object]) -> Callable[..., Any]:
    """The act, with something that comes before it."""

    def both(*arguments: Any, **named: Any) -> Any:
        first()
        return act(*arguments, **named)

    return both


STEP = st.tuples(st.sampled_from(("write", "follow", "open", "fold", "forget")), st.integers(0, 2))


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=25))
def test_of_several_managers_and_folds_only_the_last_manager_writes(steps: list[tuple[str, int]]) -> None:
    """What a manager believes to have written is in level 1, whatever was folded while it was away."""
    states = states_in(memory())
    managers = [GlobalManager.open(states, holder="daemon") for _ in range(3)]
    in_force: int | None = 2
    written: list[str] = []
    for number, (step, which) in enumerate(steps):
        if step == "open":
            managers[which] = GlobalManager.open(states, holder="daemon")
            in_force = which
        elif step == "forget":
            forget_video(states, "upload", "another-video", holder="erasure")
            in_force = None
        elif step == "fold":
            GlobalManager.open(states, holder="upkeep").fold("9999")
            in_force = None
        else:
            act = partial(managers[which].run_status, path(number), "queued") if step == "write" else None
            with nullcontext() if which == in_force else pytest.raises(Fenced):
                (act or managers[which].follow)()
                written += [path(number)] if step == "write" else []
    assert sorted(states.read_global()["runs"]) == sorted(written)
