"""The same work done two ways: as Dagster assets, and by calling the functions behind them directly."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.common import MODELS
from trendflow.components.base import Upstream
from trendflow.config import Settings
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.canonical import content_digest
from trendflow.media.frames_dir import FramesDir
from trendflow.media.ingest import LocalSource, fetch
from trendflow.media.segmenter import segment
from trendflow.orchestration import segmenter_step
from trendflow.orchestration.deployment import Deployment, open_deployment
from trendflow.orchestration.inputs import assemble_inputs, video_info
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
    limits = media_limits(run.deployment, run.profile_name)
    return fetch(run.request["video_source"]["locator"], scratch / "source", limits=limits)


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
        video = video_info(upstream[SEGMENTER], segmented.source.duration_sec)
        inputs = assemble_inputs(run, node.name, video=video, upstream=upstream, frames=frames, dense=dense)
        done[node.name] = module.run(inputs)
    return done


@contextmanager
def timed_functions(run: RunContext) -> Iterator[list[float]]:
    """While open, every call of ingest, the Segmenter and a component adds its wall seconds to the list."""
    calls: list[float] = []

    def timed(work: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                calls.append(time.perf_counter() - start)

        return measured

    with ExitStack() as stack:
        for name in ("fetch", "segment"):
            stack.enter_context(patch.object(segmenter_step, name, timed(getattr(segmenter_step, name))))
        for node in run.enabled:
            module = run.deployment.registry[node.name].module
            if module is not None:
                stack.enter_context(patch.object(module, "run", timed(module.run)))
        yield calls


def same_results(run: RunContext, artifacts: Mapping[str, Artifact]) -> bool:
    """True when the run computed every component itself and its main artifacts say what `artifacts` say."""
    rows = {row["name"]: row for row in run.manifest()["components"]}
    return set(rows) == set(artifacts) and all(
        not rows[name]["cache_hit"]
        and rows[name]["artifacts"][0]["content_digest"]
        == content_digest(name, rows[name]["schema_version"], found.status, found.empty_reason, found.arrays)
        for name, found in artifacts.items()
    )
