"""The sensors that watch how runs end: one raises alarms, one launches again what may succeed by now."""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dagster import (
    AssetKey,
    AssetObservation,
    AssetSpec,
    DagsterInstance,
    DefaultSensorStatus,
    MetadataValue,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from trendflow.alarms.book import KEY, AlarmBook, Changes
from trendflow.alarms.ended_runs import EndedRun, EndedRuns
from trendflow.alarms.rules import Alarm, AlarmLimits, run_alarms, slow_components
from trendflow.contracts.costs import CostRow
from trendflow.contracts.schema_docs import markdown_table
from trendflow.orchestration.acceptance import this_process
from trendflow.orchestration.assets import OWNERS
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.relaunch import Relaunch, RelaunchPlan, plan_relaunches
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.runs import run_path_of
from trendflow.state.run_manager import RunManager
from trendflow.storage.cost_registry import CostRegistry

log = logging.getLogger(__name__)

ALARMS = "alarms"
FAILURE_ALARM, RETRY_FAILED_RUNS = "failure_alarm", "retry_failed_runs"
_LOOK_SEC, _RETRY_SEC = 60, 15
# A baseline of fifty executions per series, of the components that run, and what came meanwhile.
_COST_OBJECTS = 500


class Watch:
    """What a process remembers between two looks, so that a look at nothing new costs next to nothing."""

    def __init__(self, deployment: Deployment, limits: AlarmLimits | None = None) -> None:
        self._deployment, self._limits = deployment, limits or AlarmLimits()
        self._ended = EndedRuns(deployment.states, deployment.results)
        self._book = AlarmBook(deployment.store, deployment.schemas)
        self._costs = CostRegistry(deployment.store, deployment.schemas)
        self._seen: list[EndedRun] = []
        self._rows: list[CostRow] = []

    def look(self, plan: RelaunchPlan) -> tuple[int, Changes]:
        """Judge the runs that ended, and let the alarms that are due stand. Returns how many runs were judged."""
        at = self._deployment.states.clock.utc()
        now = datetime.fromisoformat(at)
        runs = self._ended.latest(self._limits.window)
        if runs != self._seen:
            self._rows = list(self._costs.rows(_COST_OBJECTS))
            self._seen = runs
        found = [*run_alarms(runs, now, self._limits), *slow_components(self._rows, now, self._limits)]
        if plan.held:
            found.append(Alarm("retry_budget", "", plan.held, 0, plan.spent))
        return len(runs), self._book.update(found, at=at)


def alarms_spec() -> AssetSpec:
    """What the UI shows the alarms under; the sensor observes it when something changed."""
    return AssetSpec(
        ALARMS,
        description="Alarms about the deployment: systematic failures, success rate, memory, slow components, retries.",
        group_name="operations",
        owners=OWNERS,
        kinds={"json"},
    )


def build_alarm_sensor() -> SensorDefinition:
    """Raises and ends alarms."""
    watches: dict[Deployment, Watch] = {}

    @sensor(
        name=FAILURE_ALARM,
        minimum_interval_seconds=_LOOK_SEC,
        default_status=DefaultSensorStatus.RUNNING,
        description="Raises an alarm when runs fail systematically, run out of memory, or components become slow.",
    )
    def failure_alarm(context: SensorEvaluationContext, trendflow: TrendFlowResource) -> SensorResult:
        deployment = trendflow.deployment
        watch = watches.setdefault(deployment, Watch(deployment))
        judged, changes = watch.look(plan_relaunches(context.instance, deployment.graph))
        for row in changes.raised:
            level = logging.ERROR if row["severity"] == "error" else logging.WARNING
            log.log(level, "alarm raised: %s", _line(row), extra={"error_code": row["error_code"]})
        for row in changes.ended:
            log.info("alarm ended: %s", _line(row), extra={"error_code": row["error_code"]})
        observed = [_observation(changes)] if changes.raised or changes.ended else []
        return SensorResult(skip_reason=_summary(judged, changes), asset_events=observed)

    return failure_alarm


def build_retry_sensor(processing: UnresolvedAssetJobDefinition) -> SensorDefinition:
    """Launches runs of `processing` again that ended of a transient error, within a budget."""

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
    requests = [_request(relaunch) for relaunch in plan.due if _recorded(deployment, relaunch)]
    if requests:
        return requests
    return SkipReason("The state of runs that failed is not ended yet." if plan.due else plan.reason)


def _recorded(deployment: Deployment, relaunch: Relaunch) -> bool:
    """Record the retry in the journal of the run, once. False while the state does not say that the run has failed."""
    states, path = deployment.states, run_path_of(relaunch.partition_key)
    view = states.read_run(path)
    if view is None or view.run["status"] != "error":
        return False
    for event in states.events(path):
        if event.type == "retry_scheduled" and event.level == 2 and event.data["attempt"] == relaunch.attempt:
            return True  # by a tick that died before its request was taken
    manager = RunManager.open(states, path, holder=this_process(), only_if={"error"})
    if manager is None:
        return False
    manager.relaunch_scheduled(relaunch.error_code, relaunch.attempt, relaunch.wait_s)
    return True


def _request(relaunch: Relaunch) -> RunRequest:
    run = relaunch.run
    return RunRequest(
        run_key=f"retry-of-{run.run_id}",
        partition_key=relaunch.partition_key,
        tags=relaunch.tags,
        asset_selection=None if run.asset_selection is None else sorted(run.asset_selection),
    )


def _line(row: Mapping[str, Any]) -> str:
    subject = f" {row['subject']}" if row["subject"] else ""
    return f"{row['rule']}{subject} {row['value']:g} (limit {row['threshold']:g}, {row['runs']} runs)"


def _summary(judged: int, changes: Changes) -> str:
    looked = f"{judged} ended runs were judged"
    if not changes.active:
        return f"{looked}, and no alarm stands."
    lines = "; ".join(_line(row) for row in changes.active)
    return f"{looked}. Alarms: {lines}."


def _observation(changes: Changes) -> AssetObservation:
    head = ("rule", "subject", "value", "limit", "runs", "severity", "since")
    names = ("rule", "subject", "value", "threshold", "runs", "severity", "since")
    table = markdown_table(head, [[str(row[name]) for name in names] for row in changes.active])
    return AssetObservation(
        asset_key=AssetKey(ALARMS),
        metadata={
            "alarms": MetadataValue.md(table if changes.active else "none"),
            "standing": len(changes.active),
            "raised": len(changes.raised),
            "ended": len(changes.ended),
            "document": MetadataValue.text(KEY),
        },
    )
