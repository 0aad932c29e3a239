"""Sensors that end the state of a run whose process could not: it was killed, or never began."""

from dagster import (
    DagsterRunStatus,
    DefaultSensorStatus,
    RunStatusSensorContext,
    SensorDefinition,
    SkipReason,
    run_status_sensor,
)

from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.settling import settle


def build_run_sensors() -> list[SensorDefinition]:
    """One for runs that failed, one for cancelled ones. They run wherever the daemon does."""
    return [
        _sensor("state_of_failed_runs", DagsterRunStatus.FAILURE),
        _sensor("state_of_cancelled_runs", DagsterRunStatus.CANCELED),
    ]


def _sensor(name: str, status: DagsterRunStatus) -> SensorDefinition:
    # Of all jobs: the UI and its backfills launch another one than `process_video`.
    @run_status_sensor(
        name=name,
        run_status=status,
        default_status=DefaultSensorStatus.RUNNING,
        description="Ends the state of runs whose process ended without doing so.",
    )
    def end(context: RunStatusSensorContext, trendflow: TrendFlowResource) -> SkipReason:
        changed = settle(trendflow.deployment, context.instance, context.dagster_run)
        if changed is None:
            return SkipReason("No video run, or another attempt at it has followed.")
        return SkipReason("The state was ended." if changed else "The state had ended.")

    return end
