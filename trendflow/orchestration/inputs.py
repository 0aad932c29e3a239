"""Builds what a component may see from what the store holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
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
from trendflow.contracts.graph import SEGMENTER, ComponentNode
from trendflow.contracts.manifest import find_row
from trendflow.contracts.video_document import VideoDocument
from trendflow.media import frames_store
from trendflow.media.frames_dir import FramesDir
from trendflow.orchestration.batches import batch_runner
from trendflow.orchestration.cache import stem_of
from trendflow.orchestration.document_input import open_document
from trendflow.orchestration.progress import ProgressEvent, emit
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.scratch import mark_scratch, scratch_dir

_AUDIO_READS = frozenset({"audio", "audio_full"})
MEDIA_READS = _AUDIO_READS | {"frames"}
"""What lies in the frames folder, as `reads` names it."""
_GEOMETRY = ("analysis_width", "analysis_height", "analysis_fps")


def open_frames(run: RunContext, manifest: Mapping[str, Any]) -> FramesDir:
    """The run's frames: straight from a local store, else from scratch, else downloaded to scratch.

    Raises `dependency_missing` when the run has none (expired, or never needed because everything was reused).
    """
    block = manifest["run"]["frames_dir"]
    if block is None or frames_store.is_expired(block["expires_at"]):
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


def frames_available(run: RunContext, manifest: Mapping[str, Any]) -> bool:
    """Whether the run's own frames can still be read: stored, complete and not expired."""
    block = manifest["run"]["frames_dir"]
    return (
        block is not None
        and not frames_store.is_expired(block["expires_at"])
        and frames_store.is_complete(run.deployment.store, run.run_path)
    )


def read_upstream(run: RunContext, component: str, manifest: Mapping[str, Any]) -> dict[str, Upstream]:
    """Upstream artifacts by name, checked against their manifest rows. Failed soft dependencies are left out."""
    found: dict[str, Upstream] = {}
    for name in run.deployment.graph.active_deps(run.profile_name, component):
        upstream = _read(run, name, manifest)
        if upstream is not None:
            found[name] = upstream
    return found


def _read(run: RunContext, name: str, manifest: Mapping[str, Any]) -> Upstream | None:
    row = find_row(manifest, name)
    if row is None or row["status"] == "error":
        return None
    entry = next(item for item in row["artifacts"] if stem_of(item) == name)
    stored = run.deployment.results.read_artifact(run.run_path, name, expected_sha256=entry["sha256"])
    return Upstream(name, row["status"], row["empty_reason"], stored.arrays, stored.meta)


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


def progress_of(run: RunContext, component: str) -> Progress:
    """Progress callback: tells whoever watches this process, reports to the state, and halts a run that must stop."""

    def report(done: int, total: int) -> None:
        emit(ProgressEvent(component, "running", done, total))
        run.recorder.progress(component, done, total)

    return report


def reads_media(node: ComponentNode) -> bool:
    """Whether a component needs the run's frames folder; the others can run after it has expired."""
    return not MEDIA_READS.isdisjoint(node.reads)


def video_info(segmenter: Upstream, duration_sec: float | None) -> VideoInfo:
    """Geometry and time axis from what outlives the frames: the Segmenter's artifact and `source.duration_sec`.

    The artifact's features are float32, so exact values come from elsewhere wherever they are stored exactly. Raises
    `artifact_validation_failed` when one is missing.
    """
    meta = segmenter.meta
    if duration_sec is None or any(name not in meta for name in _GEOMETRY):
        raise TrendFlowError("artifact_validation_failed", "The Segmenter's result does not describe its video.")
    return VideoInfo(
        duration_sec=float(duration_sec),
        analysis_width=int(meta["analysis_width"]),
        analysis_height=int(meta["analysis_height"]),
        analysis_fps=float(meta["analysis_fps"]),
        source_fps=segmenter.feature("source_fps"),
    )


def build_inputs(
    run: RunContext, component: str, manifest: Mapping[str, Any], sleep: Callable[[float], None] = time.sleep
) -> ComponentInputs:
    """Everything `component` declares, and nothing else. Raises `dependency_missing` for what is absent.

    `sleep` is what the component's batches wait with after running out of memory.
    """
    mark_scratch(run)
    node = run.deployment.graph.components[component]
    upstream = read_upstream(run, component, manifest)
    segmenter = upstream.get(SEGMENTER) or _read(run, SEGMENTER, manifest)
    if segmenter is None:
        raise TrendFlowError("dependency_missing", "This run holds no result of the Segmenter.", kind="artifact")
    return assemble_inputs(
        run,
        component,
        video=video_info(segmenter, manifest["run"]["source"]["duration_sec"]),
        upstream=upstream,
        frames=open_frames(run, manifest) if reads_media(node) else None,
        dense=_dense(run, manifest) if "dense" in node.reads else None,
        document=open_document(run) if "document" in node.reads else None,
        sleep=sleep,
    )


def assemble_inputs(
    run: RunContext,
    component: str,
    *,
    video: VideoInfo,
    upstream: Mapping[str, Upstream],
    frames: FramesDir | None = None,
    dense: Mapping[str, np.ndarray] | None = None,
    document: VideoDocument | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> ComponentInputs:
    """The inputs of `component` from parts that are already open.

    Raises `dependency_missing` for frames it lacks, what loading its models raises, and `insufficient_gpu_memory`.
    """
    deployment = run.deployment
    node = deployment.graph.components[component]
    samples: FrameSamples | None = None
    audio: AudioInput | None = None
    if frames is None and reads_media(node):
        raise TrendFlowError("dependency_missing", f"{component} needs the sampled frames.", kind="frames_dir")
    if frames is not None and "frames" in node.reads:
        indices, times = frames.samples(component)
        samples = FrameSamples(indices, times, frames)
    if frames is not None and not _AUDIO_READS.isdisjoint(node.reads):
        audio = _audio(frames, node.sampling.family if node.sampling else None)
    models = {
        role: deployment.pool.get(run.resolved[role].entry, run.resolved[role].device)
        for role in run.roles_of(component)
    }
    return ComponentInputs(
        video=video,
        upstream=upstream,
        samples=samples,
        audio=audio,
        dense=dense,
        document=document,
        declarations=(
            deployment.registry.declarations(run.profile_name, component, deployment.schemas)
            if "declarations" in node.reads
            else None
        ),
        models=models,
        params=deployment.registry.params(run.profile_name, component),
        runner=batch_runner(
            run, node, models.values(), size=(video.analysis_width, video.analysis_height), sleep=sleep
        ),
        progress=progress_of(run, component),
    )
