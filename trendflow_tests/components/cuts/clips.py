"""Builds the inputs of cut detection from frames in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trendflow.components.base import ComponentInputs, FrameSamples, Upstream, VideoInfo
from trendflow.contracts.artifact import Artifact
from trendflow_tests.components.cuts.dense_reference import dense_signals


@dataclass(frozen=True)
class ArrayReader:
    """A union of frames that lies in memory."""

    frames: np.ndarray

    def read(self, union_indices: np.ndarray) -> np.ndarray:
        return self.frames[union_indices]


@dataclass(frozen=True)
class Clip:
    """Frames uint8 `[F, h, w, 3]` with their timestamps."""

    frames: np.ndarray
    pts: np.ndarray
    time_base: tuple[int, int]

    @classmethod
    def at_rate(cls, frames: np.ndarray, fps: int) -> Clip:
        return cls(frames, np.arange(len(frames), dtype=np.int64), (1, fps))

    def dense(self, *, thumbs: bool = False) -> dict[str, np.ndarray]:
        return dense_signals(self.frames, self.pts, self.time_base, thumbs=thumbs)

    def inputs(
        self,
        *,
        dense: Mapping[str, np.ndarray] | None = None,
        every: int = 1,
        upstream: Mapping[str, Upstream] | None = None,
        **more: Any,
    ) -> ComponentInputs:
        """Inputs whose union and samples are every `every`-th frame."""
        dense = self.dense() if dense is None else dense
        t = dense["pts_sec"]
        union = np.arange(0, len(t), every, dtype=np.int64)
        interval = float(np.median(np.diff(t))) if len(t) > 1 else 0.04
        samples = FrameSamples(np.arange(len(union), dtype=np.int32), t[union], ArrayReader(self.frames[union]))
        segmenter = {"union_frame_indices_source": union, "union_timestamps_sec": t[union]}
        return ComponentInputs(
            video=VideoInfo(float(t[-1]) + interval, self.frames.shape[2], self.frames.shape[1], 24.0, 24.0),
            upstream={"segmenter": as_upstream("segmenter", segmenter), **(upstream or {})},
            samples=samples,
            dense=dense,
            **more,
        )


def as_upstream(name: str, arrays: Mapping[str, np.ndarray]) -> Upstream:
    return Upstream(name, "ok", None, arrays, {})


def events(artifact: Artifact, kind: str) -> list[int]:
    """Source frames of the events of one type."""
    arrays = artifact.arrays
    wanted = arrays["event_type_names"].tolist().index(kind)
    return arrays["event_source_frame"][arrays["event_type_id"] == wanted].tolist()


def feature(artifact: Artifact, name: str) -> float:
    names = artifact.arrays["feature_names"].tolist()
    return float(artifact.arrays["feature_values"][names.index(name)])
