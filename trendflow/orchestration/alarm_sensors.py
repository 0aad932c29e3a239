"""The sensor that raises and ends alarms, by how runs end."""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from dagster import (
    AssetKey,
    AssetObservation,
    AssetSpec,
    DefaultSensorStatus,
    MetadataValue,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)

from trendflow.alarms.book import KEY, AlarmBook, Changes
from trendflow.alarms.ended_runs import EndedRun, EndedRuns
from trendflow.alarms.rules import Alarm, AlarmLimits, run_alarms, slow_components
from trendflow.contracts.costs import CostRow
from trendflow.contracts.schema_docs import markdown_table
from trendflow.orchestration.assets import OWNERS
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.relaunch import RelaunchPlan, plan_relaunches
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.storage.cost_registry import CostRegistry

log = logging.getLogger(__name__)

ALARMS = "alarms"
FAILURE_ALARM = "failure_alarm"
_LOOK_SEC = 60
# A baseline of fifty executions per series, of the components that run, and what came meanwhile.
_COST_OBJECTS = 500


class Watch:
    """What a process remembers between two looks, so that a look at nothing new costs next to nothing."""

    def __init__(self, deployment: Deployment, limits: AlarmLimits | None = None) -> None:
        self._deployment, self._limits = deployment, limits or AlarmLimits()
        text_readers = [name for name, node in deployment.graph.components.items() if "document" in node.reads]
        self._ended = EndedRuns(deployment.states, deployment.results, text_readers)
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
