"""The sensor that launches runs again which an outage ended."""

from collections.abc import Mapping
from typing import Any, Literal

from dagster import (
    DagsterInstance,
    DefaultSensorStatus,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SkipReason,
    sensor,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.processes import this_process
from trendflow.orchestration.relaunch import Relaunch, close, plan_relaunches
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.runs import run_path_of
from trendflow.orchestration.waiting_text import discard_text
from trendflow.state.run_manager import RunManager
from trendflow.state.transitions import RUN_END
from trendflow.submission.inbox import Inbox

RETRY_FAILED_RUNS = "retry_failed_runs"
_RETRY_SEC = 15
_CANCELLED = TrendFlowError("cancelled", "The run was cancelled.")

Answer = Literal["launch", "wait", "over"]


def build_retry_sensor(processing: UnresolvedAssetJobDefinition) -> SensorDefinition:
    """Launches runs of `processing` again that an outage ended, within a budget."""

    @sensor(
        name=RETRY_FAILED_RUNS,
        job=processing,
        minimum_interval_seconds=_RETRY_SEC,
        default_status=DefaultSensorStatus.RUNNING,
        description="Launches runs again that ended of an error which may have passed, while their budget lasts.",
    )
    def retry_failed_runs(
        context: SensorEvaluationContext, trendflow: TrendFlowResource
    ) -> list[RunRequest] | SkipReason:
        return relaunch_due(trendflow.deployment, context.instance)

    return retry_failed_runs


def relaunch_due(deployment: Deployment, instance: DagsterInstance) -> list[RunRequest] | SkipReason:
    """Requests for the runs that are due, each recorded in the run's state before; else why there are none."""
    plan = plan_relaunches(instance, deployment.graph)
    for run in plan.over:
        close(instance, run)
    listed: Mapping[str, Any] = deployment.states.read_global()["runs"] if plan.due else {}
    requests: list[RunRequest] = []
    for relaunch in plan.due:
        answer = _prepared(deployment, relaunch, listed)
        if answer == "launch":
            requests.append(_request(relaunch))
        elif answer == "over":
            close(instance, relaunch.run)
    if requests:
        return requests
    return SkipReason("Nothing that is due can be launched now." if plan.due else plan.reason)


def _prepared(deployment: Deployment, relaunch: Relaunch, listed: Mapping[str, Any]) -> Answer:
    """Record the retry in the journal of the run, once; `wait` while the state does not say that the run has failed.

    `over`: the run may not begin again. One that somebody asked to cancel, before or after its failure, ends here.
    """
    states, path = deployment.states, run_path_of(relaunch.partition_key)
    view = states.read_run(path)
    if view is None or view.run["status"] in RUN_END - {"error"}:
        return "over"
    if view.run["status"] != "error":
        return "wait"
    unwanted = view.run["cancel_requested_at"] is not None
    if not unwanted and _is_replaced(deployment, path, view.run["run"], listed):
        return "over"
    if not unwanted and view.run["relaunch_scheduled"] == relaunch.attempt:
        return "launch"  # by a tick that died before its request was taken
    manager = RunManager.open(states, path, holder=this_process(), only_if={"error"})
    if manager is None:
        return "wait"
    if unwanted:
        manager.cancel_retry()
        discard_text(deployment, path, _CANCELLED)
        return "over"
    manager.relaunch_scheduled(relaunch.error_code, relaunch.attempt, relaunch.wait_s)
    return "launch"


def _is_replaced(deployment: Deployment, run_path: str, mine: Mapping[str, Any], listed: Mapping[str, Any]) -> bool:
    """Whether another run does the same, or has: of a later submission, or of `trendflow retry`."""
    video = run_path.rpartition("/")[0]
    others = [
        path
        for path, row in listed.items()
        if path.rpartition("/")[0] == video and path != run_path and row["status"] not in ("error", "cancelled")
    ]
    return any(_same(deployment, mine, path) for path in others)


def _same(deployment: Deployment, mine: Mapping[str, Any], path: str) -> bool:
    """Whether the run of this path is of the same video in the same configuration."""
    view = deployment.states.read_run(path)
    if view is not None:
        theirs: Mapping[str, Any] = view.run["run"]
    else:  # it waits for its turn
        inbox = Inbox(deployment.store, deployment.schemas, deployment.states.clock)
        message = inbox.message_of(path.rpartition("/")[2])
        theirs = {} if message is None else message.identity.as_dict()
    return {**theirs, "run_id": ""} == {**mine, "run_id": ""}


def _request(relaunch: Relaunch) -> RunRequest:
    run = relaunch.run
    return RunRequest(
        run_key=f"retry-of-{run.run_id}",
        partition_key=relaunch.partition_key,
        tags=relaunch.tags,
        asset_selection=None if run.asset_selection is None else sorted(run.asset_selection),
    )
