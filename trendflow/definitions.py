"""The Dagster code location of the video pipeline."""

from dagster import Definitions, JobDefinition, in_process_executor

from trendflow.config import load_settings
from trendflow.dataset.corpus import VECTOR
from trendflow.orchestration.assets import IO_MANAGER_KEY, build_assets
from trendflow.orchestration.deployment import Deployment, open_deployment
from trendflow.orchestration.health import build_health_asset
from trendflow.orchestration.io_manager import ArtifactIOManager
from trendflow.orchestration.jobs import PROCESS_VIDEO, check_features_job, process_video_job
from trendflow.orchestration.resources import TrendFlowResource


def build_definitions(deployment: Deployment) -> Definitions:
    """Assets, jobs and resources for the graph of `deployment`. Raises `config_invalid` when it disagrees with code."""
    trendflow = TrendFlowResource()
    gathers = VECTOR in deployment.graph.components  # without feature vectors there is no corpus to judge
    return Definitions(
        assets=[build_assets(deployment), *([build_health_asset()] if gathers else ())],
        jobs=[process_video_job(), *([check_features_job()] if gathers else ())],
        resources={"trendflow": trendflow, IO_MANAGER_KEY: ArtifactIOManager(trendflow=trendflow)},
        # One process per run: models and imports stay warm between the steps of a video.
        executor=in_process_executor,
    )


defs = build_definitions(open_deployment(load_settings()))


def load_job() -> JobDefinition:
    """The `process_video` job, for callers that run it in their own process."""
    return defs.resolve_job_def(PROCESS_VIDEO)
