"""Which state may follow which, and what follows for a processor and a run from the states of their components."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from trendflow.contracts.vocab import ComponentState

COMPONENT_END = frozenset({"success", "empty", "error", "skipped"})
RUN_END = frozenset({"success", "error", "cancelled"})
DONE = frozenset({"success", "empty"})
"""The ends of a component that satisfy whoever depends on it."""

_COMPONENT: Mapping[str, frozenset[str]] = {
    "waiting": frozenset({"running", "skipped"}),
    "running": frozenset({"success", "empty", "error", "waiting"}),  # waiting: a retry, or the worker was lost
}
_RUN: Mapping[str | None, frozenset[str]] = {
    None: frozenset({"pending"}),
    "pending": frozenset({"queued", "error", "cancelled"}),
    "queued": frozenset({"running", "error", "cancelled"}),
    "running": frozenset({"success", "error", "cancelled", "recovering"}),
    "recovering": frozenset({"running", "error", "cancelled"}),
}


def component_may(current: str, to: str | None, *, new_attempt: bool, cached: bool) -> bool:
    """Whether a component may change so.

    `new_attempt`: the run began another attempt since the component ended. `cached`: the result was found, not made.
    """
    if current in COMPONENT_END:
        return new_attempt and to == "waiting"
    if current == "waiting" and to in DONE:
        return cached
    return to in _COMPONENT[current]


def run_may(current: str | None, to: str | None, *, new_attempt: bool) -> bool:
    """Whether a run may change so. Every entry into `recovering` is a new attempt, also of a run that had ended."""
    if to == "recovering" and not new_attempt:
        return False
    if current in RUN_END:
        return to == "recovering"
    return to in _RUN[current]


def queue_may(current: str | None, to: str | None) -> bool:
    """The same for level 1, where a run that ended may be queued again: the queue knows of an attempt first."""
    return run_may(current, to, new_attempt=True) or (current in RUN_END and to in ("pending", "queued"))


def processor_state(components: Iterable[Mapping[str, Any]]) -> ComponentState:
    """State of a processor from `status` and `required` of its enabled components, of which there is at least one."""
    rows = list(components)
    states = {row["status"] for row in rows}
    if any(row["required"] and row["status"] in ("error", "skipped") for row in rows):
        return "error"
    if states == {"waiting"}:
        return "waiting"
    if not states <= COMPONENT_END:
        return "running"
    if "success" in states:
        return "success"
    return "skipped" if states == {"skipped"} else "empty"


def run_outcome(components: Iterable[Mapping[str, Any]]) -> Literal["running", "success", "error"]:
    """What a run has come to: `error` once a required component failed or was skipped, `success` when all ended."""
    rows = list(components)
    if any(row["required"] and row["status"] in ("error", "skipped") for row in rows):
        return "error"
    return "success" if all(row["status"] in COMPONENT_END for row in rows) else "running"
