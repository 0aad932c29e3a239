"""The status document: what callers see, and when it counts as changed."""

from __future__ import annotations

from typing import Any

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import validate_document
from trendflow.state.run_manager import RunManager
from trendflow.state.status import etag, status_document
from trendflow.state.store import StateStore
from trendflow_tests.state.runs import COMPONENTS, PATH, SCHEMAS, FixedClock, accepted, begun, finished, opened


def shown(manager: RunManager, **more: Any) -> dict[str, Any]:
    document = status_document(manager.view, **more)
    assert validate_document(SCHEMAS, "run_status_v1", document) == []
    return document


def test_a_run_from_its_submission_to_its_end(states: StateStore, clock: FixedClock) -> None:
    manager = accepted(states)
    document = shown(manager, queue_position=7)
    assert (document["status"], document["stage"], document["queue_position"]) == ("pending", "ingest", 7)
    assert document["progress"]["overall"] == 0.0
    assert set(document["progress"]["components"]) == set(COMPONENTS)
    clock.seconds = 5
    manager.begin(worker="worker-1", device=None, resolved_models={})
    manager.component_started("segmenter")
    clock.seconds = 8
    manager.component_progress("segmenter", 1, 2)
    document = shown(manager)
    progress = document["progress"]
    assert (progress["current_processor"], progress["current_component"]) == ("segmenter", "segmenter")
    assert (document["stage"], progress["overall"]) == ("segmenter", 0.125)
    assert (document["submitted_at"][17:19], document["started_at"][17:19]) == ("00", "05")
    clock.seconds = 9.5
    manager.component_finished("segmenter", "success", [])
    component = shown(manager)["progress"]["components"]["segmenter"]
    assert (component["duration_ms"], component["progress"]) == (4500.0, 1.0)
    stages = []
    for name in COMPONENTS[1:]:
        finished(manager, name)
        stages.append(shown(manager)["stage"])
    assert stages == ["visual", "visual", "audio"]
    manager.succeed()
    document = shown(manager)
    assert (document["status"], document["progress"]["overall"]) == ("success", 1.0)
    assert document["progress"]["current_component"] is None


def test_the_tag_changes_with_the_state_alone(states: StateStore, clock: FixedClock) -> None:
    manager = begun(states)
    manager.component_started("core_clip")
    expected = {"core_clip": 10.0}
    tag = etag(shown(manager, expected_sec=expected))
    clock.seconds = 100
    assert etag(shown(manager, expected_sec=expected)) == tag
    # Another process, which reads files and log instead of having written them, says the same.
    view = states.read_run(PATH)
    assert view is not None
    assert etag(status_document(view, expected_sec=expected)) == tag
    manager.component_progress("core_clip", 1, 4)
    assert etag(shown(manager, expected_sec=expected)) != tag


def test_the_estimate_counts_what_is_left_from_the_last_event(states: StateStore, clock: FixedClock) -> None:
    manager = begun(states)
    expected = {"segmenter": 10.0, "core_clip": 20.0, "cut_detection": 1.5}
    assert shown(manager)["estimated_finish"] is None
    clock.seconds = 4
    finished(manager, "segmenter")
    manager.component_started("core_clip")
    manager.component_progress("core_clip", 1, 4)
    clock.seconds = 30
    assert shown(manager, expected_sec=expected)["estimated_finish"] == "2026-01-02T00:00:20.500Z"
    manager.cancel()
    assert shown(manager, expected_sec=expected)["estimated_finish"] is None


@pytest.mark.parametrize("ending", ["error", "cancelled"])
def test_what_went_wrong_is_shown(states: StateStore, ending: str) -> None:
    manager = begun(states)
    manager.component_started("segmenter")
    error = TrendFlowError("video_unreadable", "The file is no video.")
    manager.component_failed("segmenter", error)
    if ending == "error":
        manager.fail(error)
    else:
        manager.cancel()
    document = shown(manager)
    components = document["progress"]["components"]
    assert (document["status"], document["stage"]) == (ending, "segmenter")
    assert components["core_clip"]["duration_ms"] is None
    assert document["error_code"] == {"error": "video_unreadable", "cancelled": "cancelled"}[ending]
    assert (components["segmenter"]["error"], components["core_clip"]["status"]) == (error.message, "skipped")


def test_a_clock_that_runs_backwards_makes_no_negative_durations(states: StateStore, clock: FixedClock) -> None:
    clock.seconds = 60
    manager = begun(states)
    manager.component_started("segmenter")
    clock.seconds = 0
    second = opened(states, "worker-2")
    second.component_finished("segmenter", "success", [])
    assert shown(second)["progress"]["components"]["segmenter"]["duration_ms"] == 0.0


def test_a_run_that_waits_is_estimated_from_its_expected_beginning(states: StateStore) -> None:
    manager = accepted(states)
    begin, expected = "2026-01-02T01:00:00.000Z", {"segmenter": 10.0, "core_clip": 20.0}
    assert shown(manager, expected_sec=expected)["estimated_finish"] is None
    assert shown(manager, expected_sec={}, starts_at=begin)["estimated_finish"] is None
    assert shown(manager, expected_sec={"unknown": 5.0}, starts_at=begin)["estimated_finish"] is None
    waiting = shown(manager, expected_sec=expected, starts_at=begin)
    assert (waiting["status"], waiting["estimated_finish"]) == ("pending", "2026-01-02T01:00:30.000Z")
