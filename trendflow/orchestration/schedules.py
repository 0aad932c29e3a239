"""Schedules. They are off until somebody turns them on, and say why where there is nothing to do."""

from dagster import DefaultScheduleStatus, RunRequest, ScheduleDefinition, SkipReason, schedule
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from trendflow.dataset.collector.schedule import SchedulePolicy
from trendflow.orchestration.dataset_step import nothing_to_collect, nothing_to_import
from trendflow.orchestration.resources import TrendFlowResource

COLLECT_DAILY, BUILD_WEEKLY = "collect_daily", "build_weekly"

# Daily is the cadence the collector's default policy counts with; the build follows the collector of its day.
_DAILY, _WEEKLY = "0 4 * * *", "0 6 * * 1"


def build_schedules(
    collecting: UnresolvedAssetJobDefinition, building: UnresolvedAssetJobDefinition
) -> list[ScheduleDefinition]:
    """The collector once a day, a dataset once a week; times are UTC."""

    @schedule(
        name=COLLECT_DAILY,
        job=collecting,
        cron_schedule=_DAILY,
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.STOPPED,
        description="Takes the snapshots that are due.",
    )
    def collect_daily(trendflow: TrendFlowResource) -> RunRequest | SkipReason:
        idle = nothing_to_collect(trendflow.deployment, SchedulePolicy())
        return RunRequest() if idle is None else SkipReason(idle)

    @schedule(
        name=BUILD_WEEKLY,
        job=building,
        cron_schedule=_WEEKLY,
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.STOPPED,
        description="Builds a dataset of the snapshots and runs there are.",
    )
    def build_weekly(trendflow: TrendFlowResource) -> RunRequest | SkipReason:
        idle = nothing_to_import(trendflow.deployment)
        return RunRequest() if idle is None else SkipReason(idle)

    return [collect_daily, build_weekly]
