"""Schedules. They are off until somebody turns them on, and say why where there is nothing to do."""

from collections.abc import Callable

from dagster import DefaultScheduleStatus, RunRequest, ScheduleDefinition, SkipReason, schedule
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from trendflow.dataset.collector.schedule import SchedulePolicy
from trendflow.orchestration.dataset_step import nothing_to_collect, nothing_to_import
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.resources import TrendFlowResource

COLLECT_DAILY, BUILD_WEEKLY = "collect_daily", "build_weekly"

# Daily is the cadence the collector's default policy counts with; the build follows the collector of its day.
_DAILY, _WEEKLY = "0 4 * * *", "0 6 * * 1"


def build_schedules(
    collecting: UnresolvedAssetJobDefinition, building: UnresolvedAssetJobDefinition
) -> list[ScheduleDefinition]:
    """The collector once a day, a dataset once a week; times are UTC."""
    return [
        _schedule(COLLECT_DAILY, collecting, _DAILY, "Takes the snapshots that are due.", _nothing_due),
        _schedule(
            BUILD_WEEKLY, building, _WEEKLY, "Builds a dataset of the snapshots and runs there are.", nothing_to_import
        ),
    ]


def _schedule(
    name: str,
    job: UnresolvedAssetJobDefinition,
    cron: str,
    description: str,
    idle: Callable[[Deployment], str | None],
) -> ScheduleDefinition:
    """`idle` says why a run would be in vain, None where it would not. Its errors fail the tick."""

    @schedule(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.STOPPED,
        description=description,
    )
    def tick(trendflow: TrendFlowResource) -> RunRequest | SkipReason:
        reason = idle(trendflow.deployment)
        return RunRequest() if reason is None else SkipReason(reason)

    return tick


def _nothing_due(deployment: Deployment) -> str | None:
    return nothing_to_collect(deployment, SchedulePolicy())
