"""Ending the state of runs whose Dagster run is over, and noting those that ended well for later submissions."""

from __future__ import annotations

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus

from trendflow.contracts.errors import ERROR_RULES, TrendFlowError
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.queue.names import ERROR_CODE_TAG
from trendflow.orchestration.run_state import conclude
from trendflow.orchestration.runs import run_path_of
from trendflow.orchestration.video_runs import latest_records, video_key

_LOST = "The process that executed the run ended before the run did."


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


def _error_of(deployment: Deployment, run_path: str, run: DagsterRun) -> TrendFlowError:
    code: str = run.tags.get(ERROR_CODE_TAG, "")
    if run.status == DagsterRunStatus.CANCELED or (code == "cancelled" and _is_unwanted(deployment, run_path)):
        return TrendFlowError("cancelled", "The run was cancelled.")
    # Of a failed run the tag alone does not tell that anybody wanted it to stop.
    return TrendFlowError(code if code in ERROR_RULES and code != "cancelled" else "internal_error", _LOST)


def _is_unwanted(deployment: Deployment, run_path: str) -> bool:
    view = deployment.states.read_run(run_path)
    return view is not None and view.run["cancel_requested_at"] is not None
