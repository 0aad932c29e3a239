"""Daily upkeep as Dagster shows it: garbage collection and compaction."""

from dagster import Config, JobDefinition, MetadataValue, OpExecutionContext, job, op
from pydantic import Field

from trendflow.orchestration.processes import this_process
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.retention_step import clean_up_deployment
from trendflow.orchestration.successes import note_all_if_lost
from trendflow.retention.compaction import Compaction

CLEAN_UP, COMPACT = "clean_up", "compact_indexes"


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


@op(description="Folds logs of what ended, keeps the run index to its size and drops old submissions.")
def compact_what_grows(context: OpExecutionContext, trendflow: TrendFlowResource) -> None:
    opened = trendflow.deployment
    noted = note_all_if_lost(opened)
    done = Compaction(opened.store, opened.schemas, opened.states, holder=this_process()).run()
    context.add_output_metadata({**done.as_dict(), "successes_noted": noted})


def clean_up_job() -> JobDefinition:
    """Garbage collection; with `dry_run` in its configuration nothing is removed."""

    @job(name=CLEAN_UP, description="Remove what is older than it is kept; finish deletions of videos.")
    def cleaning() -> None:
        remove_what_is_due()

    return cleaning


def compact_job() -> JobDefinition:
    """Compaction of indexes and logs."""

    @job(name=COMPACT, description="Fold logs, keep the run index to its size, drop old submissions.")
    def compacting() -> None:
        compact_what_grows()

    return compacting
