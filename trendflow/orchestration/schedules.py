"""Schedules: when what is done, and why not where it would be in vain. Times are UTC.

Upkeep is on from the start, for how long data are kept and whether anybody notices bad features is no choice of the
moment. What needs a key, or material of its own, is off until somebody turns it on.
"""

from collections.abc import Callable

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    DefaultScheduleStatus,
    JobDefinition,
    RunRequest,
    RunsFilter,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
    schedule,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from trendflow.dataset.collector.schedule import SchedulePolicy
from trendflow.dataset.corpus import VECTOR
from trendflow.orchestration.dataset_step import nothing_to_collect, nothing_to_import
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.resources import TrendFlowResource

CLEAN_UP_DAILY, COMPACT_DAILY, CHECK_DAILY = "clean_up_daily", "compact_daily", "check_features_daily"
COLLECT_DAILY, BUILD_WEEKLY = "collect_daily", "build_weekly"

Job = JobDefinition | UnresolvedAssetJobDefinition
Idle = Callable[[Deployment], str | None]
"""Says why a run would be in vain, None where it would not."""

_ON, _OFF = DefaultScheduleStatus.RUNNING, DefaultScheduleStatus.STOPPED
_UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def upkeep_schedules(cleaning: Job, compacting: Job) -> list[ScheduleDefinition]:
    """Garbage collection, then compaction of what it left."""
    return [
        _schedule(CLEAN_UP_DAILY, cleaning, "0 2 * * *", "Removes what is older than it is kept.", _never, _ON),
        _schedule(COMPACT_DAILY, compacting, "0 3 * * *", "Folds logs and keeps indexes small.", _never, _ON),
    ]


def corpus_schedules(collecting: Job, building: Job, checking: Job) -> list[ScheduleDefinition]:
    """What spans videos. Daily is the cadence the collector's default policy counts with; the rest follows it."""
    return [
        _schedule(COLLECT_DAILY, collecting, "0 4 * * *", "Takes the snapshots that are due.", _nothing_due, _OFF),
        _schedule(CHECK_DAILY, checking, "0 5 * * *", "Judges the features of all runs.", _nothing_to_judge, _ON),
        _schedule(
            BUILD_WEEKLY,
            building,
            "0 6 * * 1",
            "Builds a dataset of the snapshots and runs there are.",
            nothing_to_import,
            _OFF,
        ),
    ]


def _schedule(
    name: str, job: Job, cron: str, description: str, idle: Idle, status: DefaultScheduleStatus
) -> ScheduleDefinition:
    """A schedule that skips while its last run is at work, and when `idle` has a reason. Errors fail the tick."""

    @schedule(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=status,
        description=description,
    )
    def tick(context: ScheduleEvaluationContext, trendflow: TrendFlowResource) -> RunRequest | SkipReason:
        reason = _at_work(context.instance, job.name) or idle(trendflow.deployment)
        return RunRequest() if reason is None else SkipReason(reason)

    return tick


def _at_work(instance: DagsterInstance, job: str) -> str | None:
    running = instance.get_runs(RunsFilter(job_name=job, statuses=_UNFINISHED), limit=1)
    return f"The run {running[0].run_id} of {job} has not ended yet." if running else None


def _never(deployment: Deployment) -> None:
    return None


def _nothing_due(deployment: Deployment) -> str | None:
    return nothing_to_collect(deployment, SchedulePolicy())


def _nothing_to_judge(deployment: Deployment) -> str | None:
    profile = deployment.settings.profile
    if VECTOR not in deployment.graph.profile(profile).components:
        return f"Runs of the profile {profile} have no feature vectors."
    rows = deployment.states.read_global()["runs"].values()
    return None if any(row["status"] == "success" for row in rows) else "No run has succeeded lately."
