"""Ending runs that their processes left: the state of those whose Dagster run is over, and Dagster runs themselves."""

from __future__ import annotations

from datetime import datetime, timedelta

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.storage.dagster_run import RunRecord

from trendflow.contracts.canonical import utc_text
from trendflow.contracts.errors import ERROR_RULES, TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.processes import is_gone
from trendflow.orchestration.queue.names import ERROR_CODE_TAG
from trendflow.orchestration.retries import failure_tags
from trendflow.orchestration.run_state import conclude
from trendflow.orchestration.runs import run_path_of
from trendflow.orchestration.video_runs import latest_records, video_key
from trendflow.state.store import RunView

_LOST = "The process that executed the run ended before the run did."
_QUIET = timedelta(minutes=1)
"""A process that has just ended may have left what others are about to find by themselves."""


def settle(deployment: Deployment, instance: DagsterInstance, run: DagsterRun) -> bool | None:
    """End the state of a Dagster run that has ended, where its process could not.

    True when it had to be done, None when another attempt at the partition has followed: the state is about that one.
    """
    graph = deployment.graph
    key = video_key(graph, run)
    latest = None if key is None else latest_records(instance, graph, [key]).get(key)
    if key is None or latest is None or latest.dagster_run.run_id != run.run_id:
        return None
    return conclude(deployment, run_path_of(key), _error_of(deployment, run_path_of(key), run))


def is_abandoned(deployment: Deployment, record: RunRecord, view: RunView, now: datetime) -> bool:
    """Whether nobody will ever end this Dagster run: its process was that of a command on this host, and is gone.

    Dagster and the queue look after the runs that they launched, and know nothing of one that a command executes
    inside itself. `view` is the state of the run.
    """
    run = record.dagster_run
    if run.is_finished or run.remote_job_origin is not None:
        return False
    if now - datetime.fromisoformat(view.run["updated_at"]) <= _QUIET:
        return False
    since = utc_text(record.create_timestamp)  # whoever began the run before that executed another Dagster run
    begun = [
        event.data["worker"]["id"]
        for event in deployment.states.events(RunIdentity.from_mapping(view.run["run"]).run_path)
        if event.type == "run_status" and event.to == "running" and event.ts >= since
    ]
    return bool(begun) and is_gone(begun[-1])


def end_abandoned(instance: DagsterInstance, run: DagsterRun, view: RunView) -> None:
    """End such a Dagster run, as cancelled where somebody wanted that. What is left is that of any that has ended."""
    if run.status == DagsterRunStatus.CANCELING or view.run["cancel_requested_at"] is not None:
        instance.report_run_canceled(run, _LOST)
        return
    instance.add_run_tags(run.run_id, failure_tags(run.tags, "internal_error"))
    instance.report_run_failed(run, _LOST)


def _error_of(deployment: Deployment, run_path: str, run: DagsterRun) -> TrendFlowError:
    code: str = run.tags.get(ERROR_CODE_TAG, "")
    if run.status == DagsterRunStatus.CANCELED or (code == "cancelled" and _is_unwanted(deployment, run_path)):
        return TrendFlowError("cancelled", "The run was cancelled.")
    # Of a failed run the tag alone does not tell that anybody wanted it to stop.
    return TrendFlowError(code if code in ERROR_RULES and code != "cancelled" else "internal_error", _LOST)


def _is_unwanted(deployment: Deployment, run_path: str) -> bool:
    view = deployment.states.read_run(run_path)
    return view is not None and view.run["cancel_requested_at"] is not None
