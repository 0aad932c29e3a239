"""Runs the motion components on clips, each artifact held against its schema."""

from __future__ import annotations

import numpy as np

from trendflow.components.base import ComponentInputs, FrameSamples, Upstream, VideoInfo
from trendflow.components.visual import core_optical_flow, optical_flow
from trendflow.contracts.artifact import Artifact
from trendflow.models.batching import BatchRunner
from trendflow.models.interface import ModelHandle
from trendflow_tests.components.schema_check import schema_problems
from trendflow_tests.components.visual.clips import ArrayReader, Clip


def flow_inputs(model: ModelHandle, clip: Clip, batch_size: int = 8) -> ComponentInputs:
    height, width = clip.frames.shape[1:3]
    return ComponentInputs(
        video=_video(float(clip.times_s[-1]) + 0.25, width, height),
        upstream={},
        samples=FrameSamples(np.arange(len(clip), dtype=np.int32), clip.times_s, ArrayReader(clip.frames)),
        models={"optical_flow": model},
        runner=BatchRunner(batch_size, pause_s=0.0),
    )


def run_flow(model: ModelHandle, clip: Clip, batch_size: int = 8) -> Artifact:
    artifact = core_optical_flow.run(flow_inputs(model, clip, batch_size))
    assert schema_problems(core_optical_flow, artifact) == []
    return artifact


def summarise(flow: Artifact, assigned: np.ndarray | None = None, times_s: np.ndarray | None = None) -> Artifact:
    """optical_flow on a finished core_optical_flow; by default on the same frames."""
    assigned = flow.arrays["frame_indices"] if assigned is None else assigned
    union = flow.arrays["times_s"] if times_s is None else times_s
    segmenter = {
        "component_names": np.array(["optical_flow"]),
        "component_indices": assigned.astype(np.int32),
        "component_indices_row_splits": np.array([0, len(assigned)], dtype=np.int64),
        "union_timestamps_sec": union,
    }
    artifact = optical_flow.run(
        ComponentInputs(
            video=_video(float(union[-1]) + 0.25, 568, 320),
            upstream={
                "segmenter": Upstream("segmenter", "ok", None, segmenter, {}),
                "core_optical_flow": Upstream(
                    "core_optical_flow", flow.status, flow.empty_reason, flow.arrays, flow.meta
                ),
            },
        )
    )
    assert schema_problems(optical_flow, artifact) == []
    return artifact


def _video(duration_s: float, width: int, height: int) -> VideoInfo:
    return VideoInfo(duration_s, width, height, 30.0, 30.0)
