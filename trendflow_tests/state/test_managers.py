"""A manager at its work: attempts, coalescing, checkpoints, and how a run is ended."""

from __future__ import annotations

import pytest

from trendflow.state.errors import IllegalTransition
from trendflow.state.store import StateStore
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.state.runs import (
    COMPONENTS,
    PATH,
    SLOW,
    FixedClock,
    begun,
    finished,
    numbers,
    opened,
    saved,
    texts,
)


def component_events(states: StateStore, name: str) -> list[str]:
    return texts(states.events(PATH), lambda event: event.subject == name)


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
