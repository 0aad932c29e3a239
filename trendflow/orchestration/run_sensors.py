"""Sensors that end the state of a run whose process could not: it was killed, or never began."""

from dagster import (
    DagsterInstance,
    DagsterRun,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunsFilter,
    RunStatusSensorContext,
    SensorDefinition,
    SkipReason,
    run_status_sensor,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.tags import PARTITION_NAME_TAG

from trendflow.contracts.errors import ERROR_RULES, TrendFlowError
from trendflow.orchestration.failures import ERROR_TAG
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.run_state import conclude
from trendflow.orchestration.runs import run_path_of

_LOST = "The process that executed the run ended before the run did."


def build_run_sensors(processing: UnresolvedAssetJobDefinition) -> list[SensorDefinition]:
    """One for runs of `processing` that failed, one for cancelled ones. They run wherever the daemon does."""
    return [
        _sensor("state_of_failed_runs", processing, DagsterRunStatus.FAILURE),
        _sensor("state_of_cancelled_runs", processing, DagsterRunStatus.CANCELED),
    ]


def _sensor(name: str, processing: UnresolvedAssetJobDefinition, status: DagsterRunStatus) -> SensorDefinition:
    @run_status_sensor(
        name=name,
        run_status=status,
        monitored_jobs=[processing],
        default_status=DefaultSensorStatus.RUNNING,
        description="Ends the state of runs whose process ended without doing so.",
    )
    def settle(context: RunStatusSensorContext, trendflow: TrendFlowResource) -> SkipReason:
        run = context.dagster_run
        key = run.tags.get(PARTITION_NAME_TAG)
        if key is None or not _is_latest(context.instance, run, key):
            return SkipReason("Another attempt at the run has followed.")
        changed = conclude(trendflow.deployment, run_path_of(key), _error_of(run))
        return SkipReason("The state was ended." if changed else "The state had ended.")

    return settle


def _is_latest(instance: DagsterInstance, run: DagsterRun, partition_key: str) -> bool:
    """Whether no later attempt at the partition exists, which would be the one that the state is about."""
    filters = RunsFilter(job_name=run.job_name, tags={PARTITION_NAME_TAG: partition_key})
    return [found.run_id for found in instance.get_runs(filters, limit=1)] == [run.run_id]


def _error_of(run: DagsterRun) -> TrendFlowError:
    if run.status == DagsterRunStatus.CANCELED:
        return TrendFlowError("cancelled", "The run was cancelled.")
    code: str = run.tags.get(ERROR_TAG, "")
    return TrendFlowError(code if code in ERROR_RULES else "internal_error", _LOST)
