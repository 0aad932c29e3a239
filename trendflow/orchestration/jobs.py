"""Jobs: what people launch."""

from __future__ import annotations

from dagster import AssetSelection, define_asset_job, in_process_executor
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from trendflow.orchestration.assets import REPORT
from trendflow.orchestration.dataset_assets import (
    CHANNELS,
    COLLECTED,
    FEATURE_TABLE,
    SNAPSHOTS,
    TARGETS,
    TRAINING_DATASET,
)
from trendflow.orchestration.health_step import HEALTH
from trendflow.orchestration.prediction import PREDICTION

PROCESS_VIDEO, CHECK_FEATURES = "process_video", "check_features"
COLLECT_SNAPSHOTS, BUILD_DATASET, FORECAST_VIDEO = "collect_snapshots", "build_dataset", "forecast_video"


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


def collect_snapshots_job() -> UnresolvedAssetJobDefinition:
    """One run of the collector."""
    return define_asset_job(
        COLLECT_SNAPSHOTS,
        selection=AssetSelection.assets(COLLECTED),
        executor_def=in_process_executor,
        description="Take the snapshots of followed videos that are due now.",
    )


def build_dataset_job() -> UnresolvedAssetJobDefinition:
    """From snapshots to a dataset, over the runs there are."""
    return define_asset_job(
        BUILD_DATASET,
        selection=AssetSelection.assets(SNAPSHOTS, TARGETS, CHANNELS, FEATURE_TABLE, TRAINING_DATASET),
        executor_def=in_process_executor,
        description="Import snapshots, make targets, look channels up and build a dataset of all runs of a profile.",
    )


def forecast_video_job() -> UnresolvedAssetJobDefinition:
    """The forecast of one video run."""
    return define_asset_job(
        FORECAST_VIDEO,
        selection=AssetSelection.assets(PREDICTION),
        executor_def=in_process_executor,
        description="Forecast views and likes of one processed video and write the page.",
    )
