"""The Dagster code location of the video pipeline."""

from dagster import Definitions, JobDefinition, in_process_executor

from trendflow.config import load_settings
from trendflow.orchestration.assets import IO_MANAGER_KEY, build_assets
from trendflow.orchestration.deployment import open_deployment
from trendflow.orchestration.io_manager import ArtifactIOManager
from trendflow.orchestration.jobs import PROCESS_VIDEO, process_video_job
from trendflow.orchestration.resources import TrendFlowResource

_trendflow = TrendFlowResource()

defs = Definitions(
    assets=[build_assets(open_deployment(load_settings()))],
    jobs=[process_video_job()],
    resources={"trendflow": _trendflow, IO_MANAGER_KEY: ArtifactIOManager(trendflow=_trendflow)},
    # One process per run: models and imports stay warm between the steps of a video.
    executor=in_process_executor,
)


def load_job() -> JobDefinition:
    """The `process_video` job, for callers that run it in their own process."""
    return defs.resolve_job_def(PROCESS_VIDEO)
