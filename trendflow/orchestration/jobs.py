"""Jobs: what people launch."""

from __future__ import annotations

from dagster import AssetSelection, define_asset_job, in_process_executor
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from trendflow.orchestration.assets import REPORT
from trendflow.orchestration.health_step import HEALTH

PROCESS_VIDEO, CHECK_FEATURES = "process_video", "check_features"


def process_video_job() -> UnresolvedAssetJobDefinition:
    """Everything from the source to the report, for one partition, inside one warm process."""
    return define_asset_job(
        PROCESS_VIDEO,
        selection=AssetSelection.assets(REPORT).upstream(),
        executor_def=in_process_executor,
        description="Process one video run: segment it, compute all components, close the manifest, write the report.",
    )


def check_features_job() -> UnresolvedAssetJobDefinition:
    """The health of all features, over the runs there are."""
    return define_asset_job(
        CHECK_FEATURES,
        selection=AssetSelection.assets(HEALTH),
        executor_def=in_process_executor,
        description="Judge the feature vectors of all runs of a profile together.",
    )
