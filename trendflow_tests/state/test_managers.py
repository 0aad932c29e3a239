"""Managers: fencing, attempts, coalescing, checkpoints, and how a run is ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.state.errors import Fenced, IllegalTransition
from trendflow.state.replay import no_run, replay_run
from trendflow.state.run_manager import RunManager
from trendflow.state.store import StateStore, view_of
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.state.runs import (
    COMPONENTS,
    FOLDER,
    PATH,
    BreakingStore,
    Crash,
    FixedClock,
    accepted,
    begun,
    finished,
    memory,
    numbers,
    opened,
    states_in,
    texts,
)

SLOW = TrendFlowError("timeout", "Too slow.")


def saved(store: ObjectStore, name: str) -> dict[str, Any]:
    return json.loads(store.get(f"{FOLDER}/{name}.json"))


def component_events(states: StateStore, name: str) -> list[str]:
    return texts(states.events(PATH), lambda event: event.subject == name)


def test_a_manager_that_was_replaced_stops_and_writes_nothing(states: StateStore, store: ObjectStore) -> None:
    first = begun(states)
    first.component_started("core_clip")
    second = opened(states, "worker-2")
    before = {info.key: store.get(info.key) for info in store.list(FOLDER)}
    attempts = (
        lambda: first.component_started("segmenter"),
        lambda: first.component_progress("core_clip", 1, 2),
        lambda: first.component_finished("core_clip", "success", []),
        lambda: first.warning("av_drift"),
        lambda: first.fail(SLOW),
        lambda: first.checkpoint(),
        lambda: first.close(),
    )
    for attempt in attempts:
        with pytest.raises(Fenced) as caught:
            attempt()
        assert caught.value.error_code == "cancelled"
    assert {info.key: store.get(info.key) for info in store.list(FOLDER)} == before
    finished(second, "segmenter")
    assert saved(store, "state_segmenter")["epoch"] == 2


def test_a_checkpoint_of_a_later_manager_is_not_overwritten(states: StateStore, store: ObjectStore) -> None:
    first = begun(states)
    first.component_started("core_clip")
    opened(states, "worker-2").close()
    with pytest.raises(Fenced):
        # Without having read the log since: the file alone tells.
        first._files["visual"].checkpoint()
    assert saved(store, "state_visual")["epoch"] == 2


def test_a_file_never_goes_back(states: StateStore, store: ObjectStore) -> None:
    manager = begun(states)
    older = manager._view.documents["visual"]
    manager.component_started("core_clip")
    manager.close()
    newer = saved(store, "state_visual")
    states.run_log(PATH).checkpoints.write("visual", older)
    assert saved(store, "state_visual") == newer
    store.put(f"{FOLDER}/state_visual.json", b"{")
    states.run_log(PATH).checkpoints.write("visual", older)
    assert saved(store, "state_visual") == older


def test_opening_can_be_tied_to_the_status(states: StateStore, store: ObjectStore) -> None:
    manager = begun(states)
    before = numbers(store)
    assert RunManager.open(states, PATH, holder="sensor", only_if={"pending", "queued"}) is None
    assert numbers(store) == before
    manager.component_started("segmenter")
    assert RunManager.open(states, PATH, holder="sensor", only_if={"running"}) is not None


def test_a_run_without_state_cannot_be_opened(states: StateStore) -> None:
    with pytest.raises(TrendFlowError) as caught:
        opened(states)
    assert caught.value.error_code == "dependency_missing"
    assert states.read_run(PATH) is None


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from(["open", "start", "progress", "finish"])), max_size=14))
def test_any_interleaving_of_two_managers_keeps_one_truth(turns: list[tuple[int, str]]) -> None:
    """Only the one that opened last can write; what it says is exactly what the log says."""
    clock = FixedClock()
    states = states_in(memory(), clock)
    begun(states)
    managers: list[RunManager | None] = [None, None]
    holder: int | None = None
    for turn, (who, what) in enumerate(turns):
        clock.seconds += 3
        if what == "open":
            managers[who], holder = opened(states, f"worker-{turn}"), who
            continue
        manager = managers[who]
        if manager is None:
            continue
        before = len(states.events(PATH))
        try:
            if what == "start":
                manager.component_started("core_clip")
            elif what == "progress":
                manager.component_progress("core_clip", turn, 20)
            else:
                manager.component_finished("core_clip", "success", [])
        except Fenced:
            assert who != holder
            assert len(states.events(PATH)) == before
        except IllegalTransition:
            assert len(states.events(PATH)) == before
        else:
            if len(states.events(PATH)) > before:
                assert who == holder
    events = states.events(PATH)
    by_manager: dict[str, int] = {}
    for event in events:
        assert event.epoch >= by_manager.get(event.manager, 0)
        by_manager[event.manager] = event.epoch
    assert states.read_run(PATH) == view_of(replay_run(no_run(), events))
    if holder is not None:
        current = managers[holder]
        assert current is not None
        assert current.view == states.read_run(PATH)


class Interrupting(BreakingStore):
    """Before its write number `at` something else happens."""

    def __init__(self, store: ObjectStore, at: int, happens: Callable[[], object]) -> None:
        super().__init__(store, -1, Crash(), before=True)
        self._when, self._happens = at, happens

    def put_if_absent(self, key: str, data: Any) -> bool:
        if self.writes == self._when:
            self._happens()
        return super().put_if_absent(key, data)


@pytest.mark.parametrize("at", range(4))
def test_of_two_that_open_a_run_at_once_one_gets_all_of_it(at: int) -> None:
    store = memory()
    accepted(states_in(store))
    others: list[RunManager] = []
    interrupted = states_in(Interrupting(store, at, lambda: others.append(opened(states_in(store), "worker-2"))))
    if at == 0:  # the other one was faster, so this one replaces it
        winner = opened(interrupted)
    else:
        with pytest.raises(Fenced):
            opened(interrupted)
        winner = others[0]
    winner.begin(worker="worker-1", device=None, resolved_models={})
    for name in COMPONENTS:
        finished(winner, name)
    winner.succeed()
    assert len(others) == 1
    if at == 0:
        with pytest.raises(Fenced):
            others[0].warning("av_drift")


def test_progress_is_coalesced_and_status_never(states: StateStore, clock: FixedClock) -> None:
    manager = begun(states)
    manager.component_started("core_clip")
    written = []
    for step in range(21):
        manager.component_progress("core_clip", step, 20)
        written.append(len(component_events(states, "core_clip")) - 1)
        clock.seconds += 0.25
    # Reports at 0, 2, 4 s are the first ones not within two seconds of another.
    assert written == [1] * 8 + [2] * 8 + [3] * 5
    manager.retry_scheduled("core_clip", "timeout", 1.0)
    manager.component_started("core_clip")
    manager.component_finished("core_clip", "success", [])
    assert component_events(states, "core_clip") == [
        "component_status core_clip running",
        *["component_progress core_clip"] * 3,
        "retry_scheduled core_clip waiting",
        "component_status core_clip running",
        "component_status core_clip success",
    ]


def test_components_are_coalesced_apart_and_the_end_tells_the_last_units(states: StateStore, clock: FixedClock) -> None:
    manager = begun(states)
    for name in ("core_clip", "cut_detection"):
        manager.component_started(name)
        manager.component_progress(name, 1, 10)
        manager.component_progress(name, 7, 10)
        row = manager.view.components[name]
        assert (row["done"], row["total"], row["progress"]) == (1, 10, 0.1)
    manager.component_failed("cut_detection", SLOW)
    row = manager.view.components["cut_detection"]
    assert (row["done"], row["total"], row["error_code"]) == (7, 10, "timeout")


def test_files_are_written_after_fifty_events_ten_seconds_and_every_end(
    states: StateStore, store: ObjectStore, clock: FixedClock
) -> None:
    manager = begun(states)
    start = saved(store, "state_visual")["last_seq"]
    manager.component_started("core_clip")
    clock.seconds = 9.9
    manager.checkpoint_if_due()
    assert saved(store, "state_visual")["last_seq"] == start
    clock.seconds = 10.0
    manager.checkpoint_if_due()
    second = saved(store, "state_visual")["last_seq"]
    assert second == max(numbers(store)) > start
    while max(numbers(store)) < second + 49:
        manager.warning("av_drift")
    assert saved(store, "state_visual")["last_seq"] == second
    manager.warning("av_drift")
    assert saved(store, "state_visual")["last_seq"] == second + 50
    manager.component_finished("core_clip", "success", [])
    assert saved(store, "state_visual")["components"]["core_clip"]["status"] == "success"
    manager.warning("hdr_tonemapped")
    assert saved(store, "run_state")["warnings"] == ["av_drift"]
    manager.close()
    assert saved(store, "run_state")["warnings"] == ["av_drift", "hdr_tonemapped"]
    for name in ("run_state", "state_segmenter", "state_visual", "state_audio"):
        assert saved(store, name)["last_seq"] == max(numbers(store))


def test_a_lost_worker_leaves_what_it_finished(states: StateStore) -> None:
    first = begun(states)
    finished(first, "segmenter")
    first.component_started("core_clip")
    first.component_progress("core_clip", 1, 2)
    first.flag("frames_ready", by="segmenter")
    first.component_failed("loudness_extractor", SLOW)
    assert first.view.run["progress"] == {"overall": 0.5, "done": 2, "total": 4}
    second = opened(states, "worker-2")
    assert second.view.components["core_clip"]["status"] == "running"
    second.begin(worker="worker-2", device=None, resolved_models={})
    run, rows = second.view.run, second.view.components
    assert (run["status"], run["attempt"], run["checkpoints"]["frames_ready"]) == ("running", 2, True)
    assert run["progress"] == {"overall": 0.25, "done": 1, "total": 4}
    assert rows["segmenter"]["status"] == "success"
    assert (rows["core_clip"]["status"], rows["core_clip"]["progress"]) == ("waiting", 0.0)
    second.component_finished("segmenter", "success", [], cache_hit=True)
    assert component_events(states, "segmenter")[-1] == "resume_from_checkpoint segmenter"
    # A result that is not usable after all is made again, in this attempt and only once.
    second.component_started("segmenter")
    assert second.view.run["progress"] == {"overall": 0.25, "done": 0, "total": 4}
    second.component_finished("segmenter", "empty", [])
    with pytest.raises(IllegalTransition):
        second.component_started("segmenter")


def test_a_retry_counts_and_keeps_what_was_reached(states: StateStore, clock: FixedClock) -> None:
    manager = begun(states)
    manager.component_started("core_clip", owner="gpu-0")
    manager.component_progress("core_clip", 3, 4)
    manager.retry_scheduled("core_clip", "storage_unavailable", 1.5)
    row = manager.view.components["core_clip"]
    assert (row["status"], row["retry_count"], row["error_code"]) == ("waiting", 1, "storage_unavailable")
    assert (row["progress"], row["done"], row["owner"]) == (0.75, 0, None)
    manager.retry_scheduled("core_clip", "storage_unavailable", 1.5)  # the answer to the first call was lost
    assert manager.view.run["retry_count"] == 1
    clock.seconds = 5
    manager.component_started("core_clip")
    manager.component_progress("core_clip", 1, 4)
    row = manager.view.components["core_clip"]
    assert (row["progress"], row["error_code"]) == (0.75, "storage_unavailable")
    manager.component_finished("core_clip", "success", [])
    row = manager.view.components["core_clip"]
    assert (row["retry_count"], row["error_code"], row["progress"]) == (1, None, 1.0)


def test_dependants_wait_across_processors(states: StateStore) -> None:
    manager = begun(states)
    assert manager.view.components["cut_detection"]["wait_for"] == ["segmenter", "core_clip"]
    finished(manager, "segmenter", "empty")
    assert manager.view.components["cut_detection"]["wait_for"] == ["core_clip"]
    assert manager.view.components["loudness_extractor"]["wait_for"] == []
    manager.component_started("core_clip")
    manager.component_failed("core_clip", SLOW)
    assert manager.view.components["cut_detection"]["wait_for"] == []
    manager.begin(worker="worker-1", device=None, resolved_models={})
    assert manager.view.components["cut_detection"]["wait_for"] == ["core_clip"]


def test_a_failed_run_leaves_nothing_open(states: StateStore, store: ObjectStore) -> None:
    manager = begun(states)
    finished(manager, "segmenter")
    manager.component_started("core_clip")
    manager.fail(SLOW)
    rows = manager.view.components
    assert {name: row["status"] for name, row in rows.items()} == {
        "segmenter": "success",
        "core_clip": "error",
        "cut_detection": "skipped",
        "loudness_extractor": "skipped",
    }
    run = saved(store, "run_state")
    assert (run["status"], run["error_code"], run["error"]) == ("error", "timeout", "Too slow.")
    assert {name: row["status"] for name, row in run["processors"].items()} == {
        "segmenter": "success",
        "visual": "error",
        "audio": "skipped",
    }
    assert saved(store, "state_visual")["processor"]["error_code"] == "timeout"
    with pytest.raises(IllegalTransition):
        manager.component_started("cut_detection")
    with pytest.raises(IllegalTransition):
        manager.cancel()
    manager.begin(worker="worker-1", device=None, resolved_models={})
    manager.cancel()
    with pytest.raises(IllegalTransition):  # though it ended in an earlier attempt
        manager.component_started("segmenter")
    assert manager.view.components["segmenter"]["status"] == "success"


def test_a_run_succeeds_without_an_optional_component_and_says_so(states: StateStore) -> None:
    manager = begun(states)
    for name in COMPONENTS[:-1]:
        finished(manager, name)
    with pytest.raises(IllegalTransition):
        manager.succeed()
    manager.component_started("loudness_extractor")
    manager.component_failed("loudness_extractor", SLOW)
    manager.succeed()
    assert manager.view.run["warnings"] == ["partial_failure"]
    assert manager.view.run["processors"]["audio"]["status"] == "empty"
    manager.begin(worker="worker-1", device=None, resolved_models={})
    assert manager.view.run["warnings"] == []


def test_cancelling_is_asked_for_once_and_seen_by_the_manager(states: StateStore, store: ObjectStore) -> None:
    manager = begun(states)
    manager.component_started("segmenter")
    assert not manager.cancel_requested
    assert states.request_cancel(PATH)
    asked = numbers(store)
    assert states.request_cancel(PATH)
    assert numbers(store) == asked
    manager.follow()
    assert manager.cancel_requested
    manager.cancel()
    assert manager.view.run["status"] == "cancelled"
    assert manager.view.components["segmenter"]["error_code"] == "cancelled"
    assert not states.request_cancel(PATH)


def test_a_request_to_cancel_outlives_a_lost_worker_and_not_the_end_of_the_run(states: StateStore) -> None:
    begun(states)
    assert states.request_cancel(PATH)
    manager = RunManager.open(states, PATH, holder="worker-2")
    assert manager is not None
    manager.begin(worker="worker-2", device=None, resolved_models={})
    assert manager.cancel_requested
    manager.cancel()
    manager.begin(worker="worker-2", device=None, resolved_models={})
    assert not manager.cancel_requested


def test_a_request_to_cancel_holds_for_a_run_that_is_launched_again_by_itself(states: StateStore) -> None:
    manager = begun(states)
    manager.fail(TrendFlowError("storage_unavailable", "The store is away."))
    assert states.request_cancel(PATH)
    manager = RunManager.open(states, PATH, holder="worker-2")
    assert manager is not None
    manager.begin(worker="worker-2", device=None, resolved_models={})
    assert manager.cancel_requested
    manager.cancel()
    assert not states.request_cancel(PATH)


def test_a_retry_that_nobody_wants_any_more_is_a_cancelled_run(states: StateStore) -> None:
    manager = begun(states)
    assert states.request_cancel(PATH)
    manager.fail(TrendFlowError("storage_unavailable", "The store is away."))
    manager = RunManager.open(states, PATH, holder="daemon")
    assert manager is not None
    assert manager.cancel_requested
    manager.cancel_retry()
    view = states.read_run(PATH)
    assert view is not None
    assert view.run["status"] == "cancelled"


def test_a_request_to_cancel_is_not_heard_by_a_run_that_failed_for_good(states: StateStore) -> None:
    manager = begun(states)
    manager.fail(TrendFlowError("video_unreadable", "The test says so."))
    assert not states.request_cancel(PATH)
    assert not manager.cancel_requested


def test_a_manager_that_follows_learns_that_it_was_replaced(states: StateStore) -> None:
    manager = begun(states)
    manager.follow()
    assert RunManager.open(states, PATH, holder="worker-2") is not None
    with pytest.raises(Fenced):
        manager.follow()


def test_a_run_can_be_cancelled_in_the_queue(states: StateStore) -> None:
    manager = accepted(states)
    manager.queued()
    manager.cancel()
    assert {row["status"] for row in manager.view.components.values()} == {"skipped"}


def test_cancelling_what_never_was_is_refused(states: StateStore, store: ObjectStore) -> None:
    with pytest.raises(IllegalTransition):
        states.request_cancel(PATH)
    assert list(store.list()) == []


def test_what_happens_besides_is_in_the_log(states: StateStore) -> None:
    manager = begun(states)
    manager.component_started("core_clip")
    manager.oom_reduced("core_clip", 8, 4)
    manager.cache_check_failed("core_clip", "artifact_validation_failed")
    manager.component_warning("core_clip", "low_valid_ratio")
    manager.costs_recorded(3)
    manager.resumed()
    manager.completed_from_cache()
    assert texts(states.events(PATH))[-6:] == [
        "oom_reduced core_clip",
        "cache_check_failed core_clip",
        "warning core_clip",
        f"cost_recorded {PATH}",
        f"resume_from_checkpoint {PATH}",
        f"processing_completed_from_cache {PATH}",
    ]
    assert manager.view.run["warnings"] == ["low_valid_ratio"]
