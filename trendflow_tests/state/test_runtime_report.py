"""The runtime report of a run: numbers that follow from a known time table, and null where nobody knows."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import validate_document
from trendflow.state.errors import IllegalTransition
from trendflow.state.retention import fold_run
from trendflow.state.run_manager import RunManager
from trendflow.state.runtime_report import runtime_report
from trendflow.state.store import StateStore
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.state.runs import (
    COMPONENTS,
    FOLDER,
    IDENTITY,
    PATH,
    SCHEMAS,
    SLOW,
    BreakingStore,
    Crash,
    FixedClock,
    accepted,
    begun,
    finished,
    memory,
    opened,
    states_in,
)

REPORT = f"{FOLDER}/scheduler_runtime_report.json"
KNOBS = {"batch_size": "auto", "onnx_threads": 2}
COST = {
    "unit": "frame",
    "units": 50,
    "latency_ms_per_unit": 80.0,
    "cpu_rss_peak_mb": 512.5,
    "gpu_memory_per_task_mb": None,
    "batch_size": 8,
}
MAY_BE_NULL = {"error_code"}
"""There is none where nothing failed."""


@pytest.fixture
def at(clock: FixedClock) -> Callable[[float], None]:
    """Lets time pass until so many seconds after the beginning, which is 00:00:00."""

    def move(seconds: float) -> None:
        assert seconds >= clock.seconds
        clock.seconds = seconds

    return move


def moment(seconds: int) -> str:
    return f"2026-01-02T00:{seconds // 60:02}:{seconds % 60:02}.000Z"


def begin(manager: RunManager, worker: str = "worker-1") -> None:
    manager.begin(worker=worker, device="cpu", resolved_models={}, knobs=KNOBS)


def report_of(store: ObjectStore) -> dict[str, Any]:
    """The stored report, after what holds for every one."""
    report: dict[str, Any] = json.loads(store.get(REPORT))
    assert validate_document(SCHEMAS, "scheduler_runtime_report_v1", report) == []
    parts = (report, report["queue"], *report["processors"].values(), *report["components"].values())
    for part in parts:
        unknown = {name for name, value in part.items() if value is None} - MAY_BE_NULL
        assert unknown == part["reasons"].keys(), "all that is unknown has a reason, and nothing else"
    origins = ("cached", "computed", "failed", "not_executed", "resumed")
    assert sum(report["cache"][origin] for origin in origins) == len(report["components"])
    for processor in report["processors"].values():
        if processor["duration_ms"] is not None:
            assert 0 <= processor["gaps_ms"] <= processor["duration_ms"]
    return report


def test_a_run_that_succeeded(states: StateStore, store: ObjectStore, at: Any) -> None:
    manager = accepted(states)
    at(4)
    manager.queued()
    at(10)
    begin(manager)
    at(11)
    manager.component_started("segmenter")
    at(15)
    manager.component_finished("segmenter", "success", [])
    at(16)
    manager.component_started("core_clip")
    at(20)
    manager.component_finished("core_clip", "success", [])
    at(23)
    manager.component_started("cut_detection")
    at(25)
    manager.oom_reduced("cut_detection", 8, 4)
    manager.oom_reduced("cut_detection", 4, 2)
    manager.retry_scheduled("cut_detection", "out_of_memory", 1.0)
    at(26)
    manager.component_started("cut_detection")
    at(31)
    manager.component_finished("cut_detection", "empty", [])
    manager.cache_check_failed("loudness_extractor", "artifact_validation_failed")
    manager.component_started("loudness_extractor")
    at(33)
    manager.component_failed("loudness_extractor", SLOW)
    manager.costs_recorded(2, {"core_clip": COST, "cut_detection": {**COST, "batch_size": None, "units": 1}})
    at(40)
    manager.succeed()
    report = report_of(store)
    assert report["run"] == IDENTITY.as_dict()
    assert (report["profile"], report["status"], report["error_code"]) == ("starter", "success", None)
    assert (report["attempt"], report["finished_at"], report["deliveries"]) == (1, moment(40), 1)
    assert (report["worker"], report["knobs"]) == ({"id": "worker-1", "device": "cpu"}, KNOBS)
    assert report["queue"] == {
        "submitted_at": moment(0),
        "queued_at": moment(4),
        "started_at": moment(10),
        "submitted_to_queued_sec": 4.0,
        "queued_to_started_sec": 6.0,
        "reasons": {},
    }
    assert report["executions"] == [
        {
            "attempt": 1,
            "worker": {"id": "worker-1", "device": "cpu"},
            "started_at": moment(10),
            "finished_at": moment(40),
            "outcome": "success",
            "error_code": None,
        }
    ]
    assert report["retries"] == {"run": 0, "components": 1}
    assert report["cache"] == {
        "cached": 0,
        "computed": 3,
        "failed": 1,
        "not_executed": 0,
        "resumed": 0,
        "checks_failed": 1,
    }
    assert report["processors"]["visual"] == {
        "status": "success",
        "components": 2,
        "computed": 2,
        "started_at": moment(16),
        "finished_at": moment(31),
        "duration_ms": 15000.0,
        "components_ms": 4000.0 + 2000.0 + 5000.0,
        "gaps_ms": 3000.0 + 1000.0,
        "reasons": {},
    }
    assert {name: row["duration_ms"] for name, row in report["processors"].items()} == {
        "audio": 2000.0,
        "segmenter": 4000.0,
        "visual": 15000.0,
    }
    clip, cuts, loudness = (report["components"][name] for name in ("core_clip", "cut_detection", "loudness_extractor"))
    assert {name: clip[name] for name in COST} == COST
    assert clip["reasons"] == {"gpu_memory_per_task_mb": "not_measured"}
    assert (clip["origin"], clip["duration_ms"]) == ("computed", 4000.0)
    assert (cuts["started_at"], cuts["finished_at"], cuts["duration_ms"]) == (moment(23), moment(31), 7000.0)
    assert cuts["oom_reductions"] == [{"batch_size": 8, "reduced_to": 4}, {"batch_size": 4, "reduced_to": 2}]
    assert (cuts["retry_count"], cuts["batch_size"], cuts["reasons"]["batch_size"]) == (1, None, "not_measured")
    assert (loudness["origin"], loudness["error_code"], loudness["duration_ms"]) == ("failed", "timeout", 2000.0)
    assert loudness["reasons"] == dict.fromkeys(COST, "failed")
    assert report["components"]["segmenter"]["reasons"] == dict.fromkeys(COST, "not_recorded")


def test_components_that_overlap_leave_a_gap_only_where_none_was_at_work(
    states: StateStore, store: ObjectStore, at: Any
) -> None:
    manager = begun(states)
    finished(manager, "segmenter")
    at(10)
    manager.component_started("core_clip")
    at(12)
    manager.component_started("cut_detection")
    at(17)
    manager.component_finished("cut_detection", "success", [])
    at(20)
    manager.component_finished("core_clip", "success", [])
    finished(manager, "loudness_extractor")
    manager.succeed()
    visual = report_of(store)["processors"]["visual"]
    assert (visual["duration_ms"], visual["components_ms"], visual["gaps_ms"]) == (10000.0, 15000.0, 0.0)


def test_a_run_from_the_cache_took_no_time_that_anybody_could_tell(states: StateStore, store: ObjectStore) -> None:
    manager = begun(states)
    for name in manager.view.components:
        manager.component_finished(name, "success", [], cache_hit=True)
    manager.completed_from_cache()
    manager.succeed()
    report = report_of(store)
    assert report["cache"]["cached"] == 4
    assert report["reasons"] == {"knobs": "not_recorded"}, "whoever began it did not say"
    for processor in report["processors"].values():
        assert set(processor["reasons"].values()) == {"nothing_computed"}
        assert {"started_at", "duration_ms", "components_ms", "gaps_ms"} <= processor["reasons"].keys()
    assert {(row["duration_ms"], row["reasons"]["duration_ms"]) for row in report["components"].values()} == {
        (None, "cached")
    }


def test_a_run_that_failed(states: StateStore, store: ObjectStore, at: Any) -> None:
    manager = begun(states)
    finished(manager, "segmenter")
    manager.component_started("core_clip")
    at(7)
    manager.component_failed("core_clip", SLOW)
    manager.component_skipped("cut_detection", "core_clip failed with timeout")
    manager.fail(SLOW)
    report = report_of(store)
    assert (report["status"], report["error_code"]) == ("error", "timeout")
    assert (report["executions"][0]["outcome"], report["executions"][0]["error_code"]) == ("error", "timeout")
    assert {name: row["origin"] for name, row in report["components"].items()} == {
        "segmenter": "computed",
        "core_clip": "failed",
        "cut_detection": "not_executed",
        "loudness_extractor": "not_executed",
    }
    assert report["processors"]["visual"]["duration_ms"] == 7000.0
    assert report["processors"]["audio"]["reasons"]["duration_ms"] == "nothing_computed"


@pytest.mark.parametrize("is_queued", [False, True])
def test_a_run_that_was_cancelled_while_it_waited(
    states: StateStore, store: ObjectStore, at: Any, is_queued: bool
) -> None:
    manager = accepted(states)
    at(5)
    if is_queued:
        manager.queued()
    at(9)
    opened(states, "daemon").cancel()
    report = report_of(store)
    assert (report["status"], report["executions"], report["deliveries"]) == ("cancelled", [], 0)
    assert report["reasons"] == {"worker": "never_started", "knobs": "never_started"}
    queue = report["queue"]
    assert (queue["submitted_to_queued_sec"], queue["queued_to_started_sec"]) == (5.0 if is_queued else None, None)
    assert set(queue["reasons"].values()) == {"never_started" if is_queued else "never_queued"}
    assert report["cache"]["not_executed"] == 4


def test_a_later_attempt_replaces_the_report_and_is_what_it_is_about(
    states: StateStore, store: ObjectStore, at: Any
) -> None:
    manager = begun(states)
    finished(manager, "segmenter")
    manager.component_started("core_clip")
    at(6)
    manager.component_finished("core_clip", "success", [])
    manager.costs_recorded(1, {"core_clip": COST})
    manager.component_started("cut_detection")
    manager.fail(SLOW)
    assert report_of(store)["attempt"] == 1
    at(600)
    manager.relaunch_scheduled("timeout", 1, 30.0)
    second = opened(states, "worker-2")
    begin(second, "worker-2")
    for name in ("segmenter", "core_clip"):
        second.component_finished(name, "success", [], cache_hit=True)
    second.component_started("cut_detection")
    at(602)
    second.component_finished("cut_detection", "success", [])
    second.component_finished("loudness_extractor", "success", [], cache_hit=True)
    second.costs_recorded(1, {"cut_detection": COST})
    second.succeed()
    report = report_of(store)
    assert (report["attempt"], report["worker"]["id"], report["deliveries"]) == (2, "worker-2", 2)
    assert [(row["attempt"], row["outcome"]) for row in report["executions"]] == [(1, "error"), (2, "success")]
    assert report["retries"] == {"run": 1, "components": 0}
    assert {name: row["origin"] for name, row in report["components"].items()} == {
        "segmenter": "resumed",
        "core_clip": "resumed",
        "cut_detection": "computed",
        "loudness_extractor": "cached",
    }
    visual, clip = report["processors"]["visual"], report["components"]["core_clip"]
    assert (visual["started_at"], visual["duration_ms"], visual["gaps_ms"]) == (moment(600), 2000.0, 0.0)
    assert {name: clip[name] for name in COST} == COST, "resources are of the attempt that computed it"
    assert (clip["attempt"], clip["duration_ms"], clip["reasons"]["duration_ms"]) == (1, None, "resumed")


def test_nobody_saw_the_end_of_what_a_lost_worker_did(states: StateStore, store: ObjectStore, at: Any) -> None:
    manager = begun(states)
    finished(manager, "segmenter")
    at(10)
    manager.component_started("core_clip")
    at(500)
    opened(states, "daemon").fail(TrendFlowError("internal_error", "The process ended before the run did."))
    report = report_of(store)
    (execution,) = report["executions"]
    assert (execution["outcome"], execution["finished_at"]) == ("lost", None)
    clip, visual = report["components"]["core_clip"], report["processors"]["visual"]
    assert (clip["started_at"], clip["duration_ms"], visual["duration_ms"]) == (moment(10), None, None)
    assert clip["reasons"]["duration_ms"] == visual["reasons"]["gaps_ms"] == "worker_lost"
    assert report["components"]["segmenter"]["duration_ms"] == 0.0, "the clock stood still"


def test_an_execution_that_another_one_took_up_was_lost(states: StateStore, store: ObjectStore) -> None:
    begun(states).component_started("segmenter")
    second = opened(states, "worker-2")
    begin(second, "worker-2")
    for name in second.view.components:
        finished(second, name)
    second.succeed()
    report = report_of(store)
    assert [row["outcome"] for row in report["executions"]] == ["lost", "success"]
    assert report["cache"]["computed"] == 4
    assert report["reasons"] == {}


def test_a_run_that_lives_has_no_report(states: StateStore, store: ObjectStore) -> None:
    manager = begun(states)
    manager.component_started("segmenter")
    manager.close()
    assert not store.exists(REPORT)
    assert runtime_report(states.events(PATH)) is None
    assert states.run_export(PATH).report() is None


Step = tuple[str, str, int]
STEPS = st.tuples(
    st.sampled_from(["begin", "start", "finish", "cached", "fail", "skip", "retry", "oom", "costs"]),
    st.sampled_from(COMPONENTS),
    st.integers(-5, 50),
)


def take(states: StateStore, manager: RunManager, action: str, name: str) -> RunManager:
    """One thing that may happen to a run; what may not happen now raises."""
    match action:
        case "begin":
            manager = opened(states, "another")
            begin(manager, "another")
        case "start":
            manager.component_started(name)
        case "finish" | "cached":
            manager.component_finished(name, "success", [], cache_hit=action == "cached")
        case "fail":
            manager.component_failed(name, SLOW)
        case "skip":
            manager.component_skipped(name, "the test says so")
        case "retry":
            manager.retry_scheduled(name, "timeout", 1.0)
        case "oom":
            manager.oom_reduced(name, 4, 2)
        case "costs":
            manager.costs_recorded(1, {name: COST})
    return manager


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=16), st.sampled_from(["succeed", "fail", "cancel"]), st.booleans())
def test_whatever_happened_the_report_keeps_its_contract(steps: list[Step], end: str, is_left: bool) -> None:
    """Also with a clock that is set back."""
    store, clock = memory(), FixedClock()
    clock.seconds = 1000.0
    states = states_in(store, clock)
    manager = accepted(states)
    for action, name, seconds in steps:
        clock.seconds += seconds
        with contextlib.suppress(IllegalTransition):
            manager = take(states, manager, action, name)
    if is_left:
        manager = opened(states, "daemon")
    try:
        manager.succeed() if end == "succeed" else manager.fail(SLOW) if end == "fail" else manager.cancel()
    except IllegalTransition:
        manager.fail(SLOW)
    report = report_of(store)
    assert report == runtime_report(states.events(PATH))
    assert report["last_seq"] == states.events(PATH)[-1].seq


def writes_of_an_end() -> list[tuple[int, bool]]:
    """Where a process may die once a run has ended: after its last event is written, around its files and exports."""
    store = BreakingStore(memory(), 10**9, Crash(), before=True)
    manager = begun(states_in(store))
    for name in manager.view.components:
        finished(manager, name)
    start = store.writes
    manager.succeed()
    return [(start, False), *itertools.product(range(start + 1, store.writes), (True, False))]


@pytest.mark.parametrize(("number", "before"), writes_of_an_end())
def test_a_report_that_was_not_written_is_made_up_for(number: int, before: bool) -> None:
    clean = memory()
    store = BreakingStore(clean, number, Crash(), before=before)
    manager = begun(states_in(store))
    for name in manager.view.components:
        finished(manager, name)
    with pytest.raises(Crash):
        manager.succeed()
    fold_run(states_in(clean), PATH, holder="upkeep")
    assert report_of(clean)["executions"][0]["outcome"] == "success"
    assert report_of(clean)["cache"]["computed"] == 4


def test_upkeep_writes_a_report_again_that_is_missing_or_damaged_only(states: StateStore, store: ObjectStore) -> None:
    manager = begun(states)
    for name in manager.view.components:
        finished(manager, name)
    manager.succeed()
    wanted = store.get(REPORT)
    for data in (wanted, None, b"{", b"[]"):
        if data is None:
            store.delete(REPORT)
        else:
            store.put(REPORT, data)
        fold_run(states, PATH, holder="upkeep")
        assert store.get(REPORT) == wanted
