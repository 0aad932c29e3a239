"""What somebody sees who asks again and again how runs are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.state.layout import run_folder
from trendflow.state.retention import fold_run
from trendflow.state.run_manager import Planned, RunManager
from trendflow.submission.outcomes import Outcomes
from trendflow_tests.submission.desks import USER, Deployment, draft, submission_id

PLAN = [Planned("core_clip", "visual", True), Planned("cut_detection", "visual", False)]


class Counted:
    """Hears of the requests to a store."""

    def __init__(self) -> None:
        self.requests = 0

    def requested(self, op: str, seconds: float) -> None:
        self.requests += 1

    def lost(self, key: str) -> None: ...


def watching(behind: Deployment) -> Outcomes:
    return Outcomes(behind.store, behind.states, behind.inbox, lambda profile: ["core_clip"])


def test_what_is_seen_is_what_a_new_look_sees() -> None:
    behind = Deployment()
    message = draft("a", 0, 1)
    submission = behind.desk.submit(submission_id("a"), USER, [message])
    path = message.run_path
    watched = watching(behind)

    def seen() -> str | None:
        outcome = watched.now(submission, [path])[path]
        assert outcome == watching(behind).now(submission, [path])[path]
        assert watched.now(submission, [path])[path] == outcome
        return outcome.status

    assert seen() == "pending"
    manager = RunManager.create(behind.states, message.identity, "starter", PLAN, holder="sensor")
    assert seen() == "pending"
    steps: list[tuple[Callable[[], object], str]] = [
        (manager.queued, "queued"),
        (lambda: manager.begin(worker="worker-1", device=None, resolved_models={}), "running"),
        (lambda: manager.component_started("core_clip"), "running"),
        (lambda: manager.component_progress("core_clip", 1, 2), "running"),
        (lambda: manager.component_finished("core_clip", "success", []), "running"),
        (lambda: manager.fail(TrendFlowError("network_error", "The line was down.")), "error"),
        (lambda: fold_run(behind.states, path, holder="collector"), "error"),
    ]
    for step, status in steps:
        step()
        assert seen() == status
    again = RunManager.open(behind.states, path, holder="worker-2")  # the run is launched again
    assert again is not None
    again.begin(worker="worker-2", device=None, resolved_models={})
    assert seen() == "running"
    behind.store.delete_prefix(run_folder(path))  # its video is erased
    assert seen() == "pending"  # as of a submission that nobody took in


@pytest.mark.parametrize("events", [5, 40])
def test_a_look_without_news_costs_the_same_however_much_happened(events: int) -> None:
    behind = Deployment()
    message = draft("a", 0, 1)
    submission = behind.desk.submit(submission_id("a"), USER, [message])
    manager = RunManager.create(behind.states, message.identity, "starter", PLAN, holder="sensor")
    manager.begin(worker="worker-1", device=None, resolved_models={})
    manager.component_started("core_clip")
    for done in range(events):
        behind.clock.seconds += 5  # progress is coalesced
        manager.component_progress("core_clip", done, events)
    counted = Counted()
    behind.store = behind.store.observed(counted)
    watched = watching(behind)
    watched.now(submission, [message.run_path])
    first, counted.requests = counted.requests, 0
    watched.now(submission, [message.run_path])
    assert counted.requests < first
    assert counted.requests <= 8  # three of them for the run, the others for level 1 and the inbox
