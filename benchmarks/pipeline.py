"""The same work done two ways: as Dagster assets, and by calling the functions behind them directly."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.common import MODELS
from trendflow.components.base import ComponentInputs, Upstream
from trendflow.config import Settings
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.canonical import content_digest
from trendflow.contracts.video_document import VideoDocument
from trendflow.media.frames_dir import FramesDir
from trendflow.media.ingest import LocalSource, fetch
from trendflow.media.segmenter import Segmented, segment
from trendflow.orchestration import segmenter_step
from trendflow.orchestration.deployment import Deployment, open_deployment
from trendflow.orchestration.inputs import assemble_inputs, video_info
from trendflow.orchestration.runs import RunContext, new_run_id, submit_run
from trendflow.orchestration.segmenter_step import NAME as SEGMENTER
from trendflow.orchestration.segmenter_step import media_limits, segment_request

DOCUMENT = VideoDocument(title="A title", description="What the video would be about. " * 20)


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
        video_id=f"benchmark-of-{video.stem}",
        run_id=new_run_id(),
        profile=deployment.settings.profile,
        force_recompute=True,
        document=DOCUMENT,
    )


def fetch_source(run: RunContext, scratch: Path) -> LocalSource:
    limits = media_limits(run.deployment, run.profile_name)
    return fetch(run.request["video_source"]["locator"], scratch / "source", limits=limits)


class DirectRun:
    """Ingest, Segmenter and components called as functions, with nothing around them: no store, no Dagster."""

    def __init__(self, run: RunContext, scratch: Path) -> None:
        self._run = run
        self._request = segment_request(run, fetch_source(run, scratch), scratch / "frames")
        self._segmented: Segmented | None = None
        self._frames: FramesDir | None = None
        self.done: dict[str, Artifact] = {}

    @property
    def steps(self) -> list[str]:
        """What there is to compute, in an order in which every step finds what it reads."""
        return [node.name for node in self._run.enabled]

    @property
    def duration_s(self) -> float:
        return self._of_segmenter().source.duration_sec

    def prepare(self, name: str) -> Callable[[], Artifact]:
        """The function behind one step with everything it reads already in memory or mapped."""
        if name == SEGMENTER:
            return self._segment
        module = self._run.deployment.registry[name].module
        if module is None:
            raise RuntimeError(f"{name} has no code")
        return partial(module.run, self.inputs(name))

    def compute(self, name: str) -> Artifact:
        self.done[name] = self.prepare(name)()
        return self.done[name]

    def inputs(self, name: str) -> ComponentInputs:
        """What a component would be given, from the results so far; soft dependencies not computed yet are left out."""
        segmented = self._of_segmenter()
        graph = self._run.deployment.graph
        node = graph.components[name]
        reads = node.reads
        active = graph.active_deps(self._run.profile_name, name)
        upstream = {dep: self._upstream(dep) for dep in active if dep in self.done or dep in node.hard}
        return assemble_inputs(
            self._run,
            name,
            video=video_info(upstream[SEGMENTER], segmented.source.duration_sec),
            upstream=upstream,
            frames=self._frames,
            dense=segmented.artifact.extra["dense_signals"].arrays if "dense" in reads else None,
            document=DOCUMENT if "document" in reads else None,
        )

    def _segment(self) -> Artifact:
        self._segmented = segment(self._request)
        self._frames = FramesDir.open(self._segmented.frames_dir)
        return self._segmented.artifact

    def _upstream(self, name: str) -> Upstream:
        done, spec = self.done[name], self._run.deployment.registry[name].spec
        digest = content_digest(name, spec.schema_version, done.status, done.empty_reason, done.arrays)
        # Storing would stamp these, and there are components that read them.
        stamp = {
            "schema_version": spec.schema_version,
            "producer_version": spec.producer_version,
            "content_digest": digest,
        }
        return Upstream(name, done.status, done.empty_reason, done.arrays, {**done.meta, **stamp})

    def _of_segmenter(self) -> Segmented:
        if self._segmented is None:
            raise RuntimeError("the Segmenter comes first")
        return self._segmented


def call_directly(run: RunContext, scratch: Path) -> dict[str, Artifact]:
    """Everything the profile of `run` enables, computed without store and Dagster."""
    direct = DirectRun(run, scratch)
    for name in direct.steps:
        direct.compute(name)
    return direct.done


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
