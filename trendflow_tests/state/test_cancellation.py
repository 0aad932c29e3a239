"""Requests to cancel a run: how long they hold, and who hears them."""

from __future__ import annotations

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.state.errors import IllegalTransition
from trendflow.state.store import StateStore
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.state.runs import PATH, accepted, begun, numbers, opened


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
    manager = opened(states, "worker-2")
    manager.begin(worker="worker-2", device=None, resolved_models={})
    assert manager.cancel_requested
    manager.cancel()
    manager.begin(worker="worker-2", device=None, resolved_models={})
    assert not manager.cancel_requested


@pytest.mark.parametrize("asked_before", [True, False])
def test_a_request_to_cancel_holds_for_a_run_that_is_launched_again_by_itself(
    states: StateStore, asked_before: bool
) -> None:
    manager = begun(states)
    manager.fail(TrendFlowError("storage_unavailable", "The store is away."))
    if asked_before:
        assert states.request_cancel(PATH)
    opened(states, "daemon").relaunch_scheduled("storage_unavailable", 1, 30.0)
    assert states.request_cancel(PATH)
    manager = opened(states, "worker-2")
    manager.begin(worker="worker-2", device=None, resolved_models={})
    assert manager.cancel_requested
    manager.cancel()
    assert not states.request_cancel(PATH)


def test_a_request_to_cancel_does_not_hold_for_the_attempt_of_somebody_else(states: StateStore) -> None:
    manager = begun(states)
    for attempt in (1, 2):
        manager.fail(TrendFlowError("storage_unavailable", "The store is away."))
        assert states.request_cancel(PATH)
        manager = opened(states, "a-person")
        manager.begin(worker="worker-2", device=None, resolved_models={})
        assert not manager.cancel_requested, "nobody launched it again by itself"
        assert manager.view.run["attempt"] == attempt + 1


def test_a_retry_that_nobody_wants_any_more_is_a_cancelled_run(states: StateStore) -> None:
    manager = begun(states)
    assert states.request_cancel(PATH)
    manager.fail(TrendFlowError("storage_unavailable", "The store is away."))
    manager = opened(states, "daemon")
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


def test_a_run_can_be_cancelled_in_the_queue(states: StateStore) -> None:
    manager = accepted(states)
    manager.queued()
    manager.cancel()
    assert {row["status"] for row in manager.view.components.values()} == {"skipped"}


def test_cancelling_what_never_was_is_refused(states: StateStore, store: ObjectStore) -> None:
    with pytest.raises(IllegalTransition):
        states.request_cancel(PATH)
    assert list(store.list()) == []
