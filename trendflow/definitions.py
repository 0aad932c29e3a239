"""The Dagster code location of the video pipeline."""

from dagster import AssetsDefinition, AssetSpec, Definitions, JobDefinition, in_process_executor
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from trendflow.config import load_settings
from trendflow.dataset.corpus import VECTOR
from trendflow.logs import configure_logging
from trendflow.orchestration.alarm_sensors import alarms_spec, build_alarm_sensor
from trendflow.orchestration.assets import IO_MANAGER_KEY, build_assets
from trendflow.orchestration.dataset_assets import build_dataset_assets
from trendflow.orchestration.deployment import Deployment, open_deployment
from trendflow.orchestration.health import build_health_asset
from trendflow.orchestration.io_manager import ArtifactIOManager
from trendflow.orchestration.jobs import (
    PROCESS_VIDEO,
    build_dataset_job,
    check_features_job,
    collect_snapshots_job,
    forecast_video_job,
    process_video_job,
)
from trendflow.orchestration.prediction import build_prediction_asset
from trendflow.orchestration.relaunch_sensor import build_retry_sensor
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.retention_job import clean_up_job, compact_job
from trendflow.orchestration.run_sensors import build_run_sensors
from trendflow.orchestration.schedules import corpus_schedules, upkeep_schedules
from trendflow.orchestration.submission_sensors import build_submission_sensors


def build_definitions(deployment: Deployment) -> Definitions:
    """Assets, jobs and resources for the graph of `deployment`. Raises `config_invalid` when it disagrees with code."""
    trendflow = TrendFlowResource()
    assets: list[AssetsDefinition | AssetSpec] = [build_assets(deployment), alarms_spec()]
    processing, cleaning, compacting = process_video_job(), clean_up_job(), compact_job()
    jobs: list[JobDefinition | UnresolvedAssetJobDefinition] = [processing, cleaning, compacting]
    schedules = upkeep_schedules(cleaning, compacting)
    if VECTOR in deployment.graph.components:  # without feature vectors there is no corpus to gather
        assets += [build_health_asset(), *build_dataset_assets(), build_prediction_asset()]
        collecting, building, checking = collect_snapshots_job(), build_dataset_job(), check_features_job()
        jobs += [checking, collecting, building, forecast_video_job()]
        schedules += corpus_schedules(collecting, building, checking)
    return Definitions(
        assets=assets,
        jobs=jobs,
        schedules=schedules,
        sensors=[
            *build_run_sensors(),
            *build_submission_sensors(processing),
            build_alarm_sensor(),
            build_retry_sensor(processing),
        ],
        resources={"trendflow": trendflow, IO_MANAGER_KEY: ArtifactIOManager(trendflow=trendflow)},
        # One process per run: models and imports stay warm between the steps of a video.
        executor=in_process_executor,
    )


_settings = load_settings()
configure_logging(_settings.log_format, _settings.log_level)  # of a code server; other processes have done it
defs = build_definitions(open_deployment(_settings))


def load_job() -> JobDefinition:
    """The `process_video` job, for callers that run it in their own process."""
    return defs.resolve_job_def(PROCESS_VIDEO)
