"""The tables of states against the same tables written out a second time."""

from __future__ import annotations

from itertools import product

import pytest

from trendflow.state.transitions import component_may, processor_state, queue_may, run_may, run_outcome
from trendflow_tests.state import naive


@pytest.mark.parametrize("cached", [False, True])
def test_components_move_along_the_arrows_and_leave_an_end_only_in_a_new_attempt(cached: bool) -> None:
    arrows = naive.COMPONENT_ARROWS | (naive.CACHE_ARROWS if cached else set())
    for current, to in product(naive.COMPONENT_STATES, repeat=2):
        assert component_may(current, to, new_attempt=False, cached=cached) == ((current, to) in arrows)
        expected = to == "waiting" if current in naive.ENDS else (current, to) in arrows
        assert component_may(current, to, new_attempt=True, cached=cached) == expected


def test_runs_move_along_the_arrows_and_leave_an_end_only_by_recovering() -> None:
    for current, to in product((None, *naive.RUN_STATES), naive.RUN_STATES):
        arrow = (current, to) in naive.RUN_ARROWS
        again = current in naive.RUN_ENDS and to == "recovering"
        assert run_may(current, to, new_attempt=True) == (arrow or again)
        assert run_may(current, to, new_attempt=False) == (arrow and to != "recovering")
        queued_again = current in naive.RUN_ENDS and to in ("pending", "queued")
        assert queue_may(current, to) == (arrow or again or queued_again)


def test_the_state_of_a_processor_follows_from_its_components() -> None:
    kinds = list(product(naive.COMPONENT_STATES, (False, True)))
    seen = set()
    for size in (1, 2, 3):
        for components in product(kinds, repeat=size):
            rows = [{"status": status, "required": required} for status, required in components]
            assert processor_state(rows) == naive.processor(list(components))
            seen.add(processor_state(rows))
    assert seen == set(naive.COMPONENT_STATES)


@pytest.mark.parametrize(
    ("components", "outcome"),
    [
        ({"success": True, "error": False}, "success"),
        ({"empty": True, "skipped": False}, "success"),
        ({"success": True, "error": True}, "error"),
        ({"running": False, "skipped": True}, "error"),
        ({"success": True, "waiting": False}, "running"),
    ],
)
def test_the_outcome_of_a_run(components: dict[str, bool], outcome: str) -> None:
    assert run_outcome([{"status": state, "required": flag} for state, flag in components.items()]) == outcome
