"""The process dies, or loses an answer, at every write: the state afterwards is that of an undisturbed run."""

from __future__ import annotations

from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.state.errors import IllegalTransition
from trendflow.state.run_manager import RunManager
from trendflow.state.store import StateStore, view_of
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.state.runs import PATH, BreakingStore, Crash, accepted, finished, memory, opened, states_in

SLOW = TrendFlowError("timeout", "Too slow.")
WORK = ("segmenter", "core_clip", "loudness_extractor")


def work(states: StateStore) -> None:
    """Everything that happens to a run, each step left out when it is done already."""
    view = states.read_run(PATH)
    manager = accepted(states) if view is None else opened(states)
    if manager.view.run["status"] != "success":
        manager.begin(worker="worker-1", device=None, resolved_models={})
        rows = manager.view.components
        for name in WORK:
            if rows[name]["status"] == "success":
                manager.component_finished(name, "success", rows[name]["artifact_paths"], cache_hit=True)
            else:
                finished(manager, name)
        if rows["cut_detection"]["status"] == "waiting":
            manager.component_started("cut_detection")
            manager.component_failed("cut_detection", SLOW)
        manager.succeed()
    manager.close()


def outcome(states: StateStore) -> Any:
    """What may not depend on crashes: no attempts, epochs, numbers and times."""
    view = states.read_run(PATH)
    assert view is not None
    rows = {
        name: (row["status"], row["artifact_paths"], row["error_code"], row["wait_for"])
        for name, row in view.components.items()
    }
    processors = {name: row["status"] for name, row in view.run["processors"].items()}
    return view.run["status"], view.run["warnings"], view.run["progress"], rows, processors


def check_log(states: StateStore) -> None:
    """Files lag behind the log or are level with it, and replaying everything says what they say."""
    log = states.run_log(PATH)
    documents, part = log.recover()
    assert all(document["last_seq"] <= part.end for document in log.saved(log.checkpoints).values())
    everything = log.nothing()
    for event in log.journal.read().events:
        everything = log.apply(everything, event)
    assert view_of(documents) == view_of(everything)


def writes_of(store: ObjectStore) -> int:
    counting = BreakingStore(store, -1, Crash(), before=True)
    work(states_in(counting))
    return counting.writes


def test_a_crash_at_every_write() -> None:
    undisturbed = memory()
    writes = writes_of(undisturbed)
    expected = outcome(states_in(undisturbed))
    assert writes > 40
    for point in range(writes):
        store = memory()
        try:
            work(states_in(BreakingStore(store, point, Crash(), before=True)))
        except Crash:
            check_log(states_in(store))
            work(states_in(store))
        else:
            raise AssertionError(f"there is no write {point}")
        check_log(states_in(store))
        assert outcome(states_in(store)) == expected


def test_a_call_whose_answer_was_lost_can_be_repeated() -> None:
    """The write happened and its answer did not come: the same manager repeats its call, and nothing is twice."""
    lost = TrendFlowError("storage_unavailable", "No answer.")
    steps = [
        lambda manager: manager.queued(),
        lambda manager: manager.begin(worker="worker-1", device=None, resolved_models={}),
        lambda manager: manager.component_started("segmenter"),
        lambda manager: manager.retry_scheduled("segmenter", "timeout", 1.0),
        lambda manager: manager.component_finished("segmenter", "success", [], cache_hit=True),
        lambda manager: manager.component_skipped("core_clip", "no input"),
        lambda manager: manager.fail(SLOW),
    ]
    point = expected = 0
    while True:
        store = memory()
        accepted(states_in(store))
        breaking = BreakingStore(store, -1, lost, before=False)
        manager = opened(states_in(breaking))
        breaking._at = breaking.writes + point
        broken = run_steps(manager, steps)
        events = [event for event in states_in(store).events(PATH) if event.type.endswith("_status")]
        moves = [(event.type, event.subject, event.source, event.to) for event in events]
        assert len(set(moves)) == len(moves)
        expected = expected or len(moves)
        assert len(moves) == expected
        view = states_in(store).read_run(PATH)
        assert view is not None
        assert (view.run["status"], view.run["retry_count"]) == ("error", 1)
        if not broken:
            assert point > 15
            return
        point += 1


def run_steps(manager: RunManager, steps: Any) -> bool:
    broken = False
    for step in steps:
        try:
            step(manager)
        except IllegalTransition:
            raise
        except TrendFlowError:
            broken = True
            step(manager)
    return broken
