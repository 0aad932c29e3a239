"""Builds what a component may see from what the store holds."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trendflow.components.base import (
    AudioInput,
    AudioWindows,
    ComponentInputs,
    FrameSamples,
    Progress,
    Upstream,
    VideoInfo,
)
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import SEGMENTER
from trendflow.contracts.manifest import find_row
from trendflow.media import frames_store
from trendflow.media.frames_dir import FramesDir
from trendflow.models.batching import BatchRunner
from trendflow.orchestration.cache import stem_of
from trendflow.orchestration.progress import ProgressEvent, emit
from trendflow.orchestration.runs import RunContext


def scratch_dir(run: RunContext) -> Path:
    """This process's own folder for the run: two attempts at one run must never meet in one."""
    return run.deployment.settings.scratch_dir / run.run_path / str(os.getpid())


def open_frames(run: RunContext, manifest: Mapping[str, Any]) -> FramesDir:
    """The run's frames: straight from a local store, else from scratch, else downloaded to scratch.

    Raises `dependency_missing` when the run has none (expired, or never needed because everything was reused).
    """
    block = manifest["run"]["frames_dir"]
    if block is None or block["store_key"] is None:
        raise TrendFlowError(
            "dependency_missing",
            "The sampled frames of this run are not stored any more; materialise the segmenter again.",
            kind="frames_dir",
        )
    key = block["store_key"]
    local = run.deployment.store.local_path(key)
    if local is not None:
        return FramesDir.open(local)
    target = scratch_dir(run) / "frames"
    if not (target / "video" / "metadata.json").is_file():
        frames_store.download(run.deployment.store, run.run_path, target)
    return FramesDir.open(target)


def drop_scratch(run: RunContext) -> None:
    """Remove this process's scratch folder; everything in it also stands in the store."""
    folder = scratch_dir(run)
    shutil.rmtree(folder, ignore_errors=True)
    for parent in (folder.parent, folder.parent.parent):
        with contextlib.suppress(OSError):  # another attempt is still at work there
            parent.rmdir()


def read_upstream(run: RunContext, component: str, manifest: Mapping[str, Any]) -> dict[str, Upstream]:
    """Upstream artifacts by name, checked against their manifest rows. Failed soft dependencies are left out."""
    found: dict[str, Upstream] = {}
    for name in run.deployment.graph.active_deps(run.profile_name, component):
        row = find_row(manifest, name)
        if row is None or row["status"] == "error":
            continue
        entry = next(item for item in row["artifacts"] if stem_of(item) == name)
        stored = run.deployment.results.read_artifact(run.run_path, name, expected_sha256=entry["sha256"])
        found[name] = Upstream(name, row["status"], row["empty_reason"], stored.arrays, stored.meta)
    return found


def _audio(frames: FramesDir, family: str | None) -> AudioInput:
    data = vars(frames.audio_input(family))
    windows = data["windows"]
    return AudioInput(**{**data, "windows": None if windows is None else AudioWindows(**vars(windows))})


def _dense(run: RunContext, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    row = find_row(manifest, SEGMENTER) or {"artifacts": []}
    for entry in row["artifacts"]:
        if stem_of(entry) == "dense_signals":
            stored = run.deployment.results.read_artifact(
                run.run_path, SEGMENTER, "dense_signals", expected_sha256=entry["sha256"]
            )
            return stored.arrays
    raise TrendFlowError("dependency_missing", "The dense signals of this run are missing.", kind="artifact")


def deadline_progress(run: RunContext, component: str) -> Progress:
    """Progress callback that also stops a component at a unit boundary once its time is up (`timeout`)."""
    limit = run.deployment.graph.components[component].timeout_s
    end = time.monotonic() + limit

    def report(done: int, total: int) -> None:
        emit(ProgressEvent(component, "running", done, total))
        if time.monotonic() > end:
            raise TrendFlowError("timeout", f"{component} ran longer than {limit:.0f} s.", limit_s=limit)

    return report


def build_inputs(run: RunContext, component: str, manifest: Mapping[str, Any]) -> ComponentInputs:
    """Everything `component` declares, and nothing else. Raises `dependency_missing` for what is absent."""
    reads = run.deployment.graph.components[component].reads
    return assemble_inputs(
        run,
        component,
        frames=open_frames(run, manifest),
        upstream=read_upstream(run, component, manifest),
        dense=_dense(run, manifest) if "dense" in reads else None,
    )


def assemble_inputs(
    run: RunContext,
    component: str,
    *,
    frames: FramesDir,
    upstream: Mapping[str, Upstream],
    dense: Mapping[str, np.ndarray] | None,
) -> ComponentInputs:
    """The inputs of `component` from parts that are already open."""
    node = run.deployment.graph.components[component]
    samples: FrameSamples | None = None
    audio: AudioInput | None = None
    if "frames" in node.reads:
        indices, times = frames.samples(component)
        samples = FrameSamples(indices, times, frames)
    if "audio" in node.reads or "audio_full" in node.reads:
        audio = _audio(frames, node.sampling.family if node.sampling else None)
    return ComponentInputs(
        video=VideoInfo(**frames.video_info()),
        upstream=upstream,
        samples=samples,
        audio=audio,
        dense=dense,
        models={
            role: run.deployment.pool.get(run.resolved[role].entry, run.resolved[role].device)
            for role in run.roles_of(component)
        },
        params=run.deployment.registry.params(run.profile_name, component),
        runner=BatchRunner(run.deployment.settings.batch_size),
        progress=deadline_progress(run, component),
    )
