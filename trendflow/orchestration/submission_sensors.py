"""The sensors that make submissions runs, and keep level 1, state and Dagster in agreement."""

from datetime import UTC, datetime, timedelta

from dagster import (
    DefaultSensorStatus,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from trendflow.orchestration.hand_over import TAKE_SUBMISSIONS, hand_over
from trendflow.orchestration.reconcile import reconcile
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.scheduler import scheduler_of
from trendflow.state.errors import Fenced

RECONCILE_RUNS = "reconcile_runs"

_FENCED = SkipReason("Another process had taken level 1 over; the next tick takes it back.")
_BUSY = SkipReason("Another tick has level 1.")
_OVERLAP = timedelta(minutes=1)
"""Dagster stamps a run before others can see it."""
_FIRST_LOOK = timedelta(days=1)


def build_submission_sensors(processing: UnresolvedAssetJobDefinition) -> list[SensorDefinition]:
    """The scheduler of the deployment. Both run wherever the daemon does, in the process of the code location."""

    @sensor(
        name=TAKE_SUBMISSIONS,
        job=processing,
        minimum_interval_seconds=2,
        default_status=DefaultSensorStatus.RUNNING,
        description="Forms batches of what was submitted and launches its runs in a fair order, a few at a time.",
    )
    def take_submissions(context: SensorEvaluationContext, trendflow: TrendFlowResource) -> SensorResult | SkipReason:
        scheduler = scheduler_of(trendflow.deployment)
        try:
            with scheduler.turn() as level1:
                if level1 is None:
                    return _BUSY
                requests = hand_over(scheduler, level1, context.instance)
        except Fenced:
            return _FENCED
        return SensorResult(run_requests=requests) if requests else SkipReason("Nothing is to be launched.")

    @sensor(
        name=RECONCILE_RUNS,
        minimum_interval_seconds=15,
        default_status=DefaultSensorStatus.RUNNING,
        description="Repairs what was lost between level 1, the state of runs and Dagster.",
    )
    def reconcile_runs(context: SensorEvaluationContext, trendflow: TrendFlowResource) -> SkipReason:
        now = datetime.now(UTC)
        since = datetime.fromisoformat(context.cursor) - _OVERLAP if context.cursor else now - _FIRST_LOOK
        try:
            done = reconcile(scheduler_of(trendflow.deployment), context.instance, since)
        except Fenced:
            return _FENCED
        if done is None:
            return _BUSY
        context.update_cursor(now.isoformat())
        said = ", ".join(f"{name}: {count}" for name, count in sorted(done.items()) if count)
        return SkipReason(said or "All agrees.")

    return [take_submissions, reconcile_runs]
