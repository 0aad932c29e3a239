"""Runs by their id alone, and what is known of one before its log begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.vocab import RUN_STAGES
from trendflow.service.estimates import later
from trendflow.service.failures import Refusal, not_found
from trendflow.service.parts import ServiceParts
from trendflow.service.run_archive import archived_status
from trendflow.service.users import User
from trendflow.state.status import StatusDocument, status_document
from trendflow.storage.result_store import MANIFEST_NAME, ResultStore
from trendflow.submission.desk import WAITING

_UNKNOWN = "There is no run of this id."


@dataclass(frozen=True)
class FoundRun:
    """A run of this deployment; `row` is that of level 1, None when level 1 does not list it (yet, or any more).

    `running` runs were at work when level 1 was last heard of, at `level1_at`.
    """

    run_id: str
    run_path: str
    row: Mapping[str, Any] | None
    running: int
    level1_at: str


def find_run(parts: ServiceParts, user: User, run_id: str) -> FoundRun:
    """The run of an id.

    Raises the same 404 for an id that no run has or can have, a run of somebody else and one of a deleted video.
    """
    try:
        place = parts.inbox.place_of(run_id)
    except TrendFlowError as error:
        if error.error_code != "input_constraint_violated":
            raise
        raise not_found(_UNKNOWN) from None  # without the id: it is no id, but what a caller wrote
    level1 = parts.states.read_global()
    runs = level1["runs"]
    path = place.run_path if place is not None else _listed(runs, run_id)
    if path is None or not (user.admin or parts.inbox.may_see(user.user_id, path)):
        raise _unknown(run_id)
    platform_id, video_id, _ = path.split("/")
    if parts.is_deleted(platform_id, video_id):
        raise _unknown(run_id)
    running = sum(row["status"] in ("running", "recovering") for row in runs.values())
    return FoundRun(run_id, path, runs.get(path), running, level1["updated_at"])


def status_of(parts: ServiceParts, run: FoundRun) -> StatusDocument:
    """The status document (`run_status_v1`). Raises a 404 for a run that was deleted."""
    view = parts.states.read_run(run.run_path)
    position = run.row["queue_position"] if run.row is not None else None
    if view is not None:
        waits = view.run["status"] in WAITING  # level 1 may not have heard yet that it does not any more
        position = position if waits else None
        if parts.estimates is None:
            return status_document(view, queue_position=position)
        starts_at = _starts_at(parts, run, view.run["profile"]) if waits else None
        expected = parts.estimates.component_sec()
        return status_document(view, queue_position=position, expected_sec=expected, starts_at=starts_at)
    manifest = ResultStore(parts.store).read_manifest(run.run_path)
    if manifest is not None:
        return archived_status(manifest, parts.required(manifest["run"]["profile"]))
    submitted_at = run.row["submitted_at"] if run.row is not None else _accepted_at(parts, run)
    return {**_without_log(run, submitted_at, position), "estimated_finish": _finish_of_waiting(parts, run)}


def request_cancel(parts: ServiceParts, run: FoundRun) -> None:
    """Ask the run to stop; one that ended stays as it is. A log that has not begun is begun, so that it is heard."""
    if parts.states.read_run(run.run_path) is None:
        message = parts.inbox.message_of(run.run_id)
        if message is None:
            raise _unknown(run.run_id)
        parts.begin_log(message)
    parts.states.request_cancel(run.run_path)


def manifest_key(parts: ServiceParts, run: FoundRun) -> str:
    return f"{ResultStore(parts.store).run_folder(run.run_path)}/{MANIFEST_NAME}"


def _listed(runs: Mapping[str, Any], run_id: str) -> str | None:
    """A run that was begun on another way than by a submission, while level 1 lists it."""
    return next((path for path in runs if path.endswith(f"/{run_id}")), None)


def _accepted_at(parts: ServiceParts, run: FoundRun) -> str:
    place = parts.inbox.place_of(run.run_id)
    submission = None if place is None else parts.inbox.get(place.submission_id)
    if submission is None:
        raise _unknown(run.run_id)
    return submission.accepted_at


def _starts_at(parts: ServiceParts, run: FoundRun, profile: str) -> str | None:
    """When a run that waits is expected to begin."""
    position = run.row["queue_position"] if run.row is not None else None
    if parts.estimates is None or position is None:
        return None
    return parts.estimates.starts_at(run.level1_at, position, run.running, parts.estimates.run_sec(profile))


def _finish_of_waiting(parts: ServiceParts, run: FoundRun) -> str | None:
    """When a run without a log is expected to end."""
    message = None if parts.estimates is None else parts.inbox.message_of(run.run_id)
    if message is None or parts.estimates is None or message.profile is None:
        return None
    starts_at, took = _starts_at(parts, run, message.profile), parts.estimates.run_sec(message.profile)
    return None if starts_at is None or took is None else later(starts_at, took)


def _without_log(run: FoundRun, submitted_at: str, position: int | None) -> StatusDocument:
    row = run.row or {"status": "pending", "stage": RUN_STAGES[0], "started_at": None}
    return {
        "run_id": run.run_id,
        "status": row["status"],
        "stage": row["stage"],
        "progress": {"overall": 0.0, "current_processor": None, "current_component": None, "components": {}},
        "queue_position": position,
        "submitted_at": submitted_at,
        "started_at": row["started_at"],
        "updated_at": submitted_at,
        "estimated_finish": None,
        "error": None,
        "error_code": None,
        "warnings": [],
        "retry_count": 0,
    }


def _unknown(run_id: str) -> Refusal:
    return not_found(_UNKNOWN).of_run(run_id)
