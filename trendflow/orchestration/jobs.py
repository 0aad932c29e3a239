"""Jobs: what people launch."""

from __future__ import annotations

from dagster import AssetSelection, define_asset_job, in_process_executor
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

PROCESS_VIDEO = "process_video"


def process_video_job() -> UnresolvedAssetJobDefinition:
    """Everything from the source to the report, for one partition, inside one warm process."""
    return define_asset_job(
        PROCESS_VIDEO,
        selection=AssetSelection.all(),
        executor_def=in_process_executor,
        description="Process one video run: segment it, compute all components, close the manifest, write the report.",
    )
