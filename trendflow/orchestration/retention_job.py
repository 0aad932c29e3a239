"""The daily garbage collection as Dagster shows it."""

from dagster import (
    Config,
    DefaultScheduleStatus,
    JobDefinition,
    MetadataValue,
    OpExecutionContext,
    RunRequest,
    ScheduleDefinition,
    job,
    op,
    schedule,
)
from pydantic import Field

from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.retention_step import clean_up_deployment

CLEAN_UP, CLEAN_UP_DAILY = "clean_up", "clean_up_daily"
_DAILY = "0 2 * * *"


class CleanUpConfig(Config):
    """How a garbage collection runs."""

    dry_run: bool = Field(default=False, description="Remove nothing, only tell what would go.")


@op(description="Removes what is older than it is kept, and finishes deletions of videos.")
def remove_what_is_due(context: OpExecutionContext, config: CleanUpConfig, trendflow: TrendFlowResource) -> None:
    done = clean_up_deployment(trendflow.deployment, context.instance, dry_run=config.dry_run)
    removed = done.report["removed"]
    context.log.info("objects removed: %d", sum(found["objects"] for found in removed.values()))
    context.add_output_metadata(
        {
            "report": MetadataValue.json(done.report),
            "bytes": sum(found["bytes"] for found in removed.values()),
            "partitions": done.partitions,
        }
    )


def clean_up_job() -> JobDefinition:
    """Garbage collection; with `dry_run` in its configuration nothing is removed."""

    @job(name=CLEAN_UP, description="Remove what is older than it is kept; finish deletions of videos.")
    def cleaning() -> None:
        remove_what_is_due()

    return cleaning


def clean_up_schedule(cleaning: JobDefinition) -> ScheduleDefinition:
    """Every night at 02:00 UTC. On from the start: how long data are kept is a promise, not a choice of the moment."""

    @schedule(
        name=CLEAN_UP_DAILY,
        job=cleaning,
        cron_schedule=_DAILY,
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.RUNNING,
        description="Removes what is older than it is kept.",
    )
    def tick() -> RunRequest:
        return RunRequest()

    return tick
