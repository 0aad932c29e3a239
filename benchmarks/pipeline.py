"""The same work done two ways: as Dagster assets, and by calling the functions behind them directly."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.common import MODELS
from trendflow.components.base import Upstream
from trendflow.config import Settings
from trendflow.contracts.artifact import Artifact
from trendflow.media.frames_dir import FramesDir
from trendflow.media.ingest import LocalSource, fetch
from trendflow.media.segmenter import segment
from trendflow.orchestration.deployment import Deployment, open_deployment
from trendflow.orchestration.inputs import assemble_inputs
from trendflow.orchestration.runs import RunContext, new_run_id, submit_run
from trendflow.orchestration.segmenter_step import NAME as SEGMENTER
from trendflow.orchestration.segmenter_step import media_limits, segment_request


@contextmanager
def temporary_deployment() -> Iterator[Deployment]:
    """An empty deployment with the project's models, deleted afterwards."""
    home = Path(tempfile.mkdtemp(prefix="trendflow-bench-"))
    try:
        (home / "models").symlink_to(MODELS)
        yield open_deployment(Settings(home=home))
    finally:
        shutil.rmtree(home)


def submit(deployment: Deployment, video: Path) -> RunContext:
    """A run that computes everything."""
    return submit_run(
        deployment,
        locator=str(video),
        source_type="local_path",
        platform_id="upload",
        video_id=f"bench_{video.stem}",
        run_id=new_run_id(),
        profile=deployment.settings.profile,
        force_recompute=True,
    )


def fetch_source(run: RunContext, scratch: Path) -> LocalSource:
    return fetch(run.request["video_source"]["locator"], scratch / "source", limits=media_limits(run))


def call_directly(run: RunContext, scratch: Path) -> dict[str, Artifact]:
    """Ingest, Segmenter and every component of the profile, with nothing around them: no store, no Dagster."""
    deployment = run.deployment
    source = fetch_source(run, scratch)
    segmented = segment(segment_request(run, source, scratch / "frames"))
    frames = FramesDir.open(segmented.frames_dir)
    done: dict[str, Artifact] = {SEGMENTER: segmented.artifact}
    for node in run.enabled:
        module = deployment.registry[node.name].module
        if module is None:
            continue
        upstream = {
            name: Upstream(name, done[name].status, done[name].empty_reason, done[name].arrays, done[name].meta)
            for name in deployment.graph.active_deps(run.profile_name, node.name)
        }
        dense = segmented.artifact.extra["dense_signals"].arrays if "dense" in node.reads else None
        inputs = assemble_inputs(run, node.name, frames=frames, upstream=upstream, dense=dense)
        done[node.name] = module.run(inputs)
    return done
