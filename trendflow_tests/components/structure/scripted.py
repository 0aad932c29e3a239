"""Videos whose measurements are written down instead of made, as their readers get them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from trendflow.components.base import ComponentInputs, FrameSamples, Upstream, VideoInfo
from trendflow.contracts.artifact import Artifact
from trendflow_tests.components.schema_check import schema_problems

EVENTS = ("hard_cut", "fade_in", "fade_out", "dissolve", "whip_pan", "zoom", "flash")


@dataclass(frozen=True)
class ArrayReader:
    """A union of frames that lies in memory."""

    frames: np.ndarray

    def read(self, union_indices: np.ndarray) -> np.ndarray:
        return self.frames[union_indices]


@dataclass(frozen=True)
class Script:
    """What the providers measured on every frame of the union; a component is assigned every `every`-th of them.

    `vectors` are the embeddings `[U, D]`. Hard cuts at `cuts_s` make the shots; `other_events` are events of other
    kinds, which make none here. Dense signals have one row per 1/`dense_fps` of the duration.
    """

    times_s: np.ndarray
    vectors: np.ndarray
    duration_s: float | None = None
    motion: np.ndarray | None = None
    reliable: np.ndarray | None = None
    faces: np.ndarray | None = None
    frames: np.ndarray | None = None
    cuts_s: Sequence[float] = ()
    other_events: Sequence[tuple[str, float]] = ()
    dense: Mapping[str, np.ndarray] | None = None
    dense_fps: float = 25.0
    every: int = 1
    names: Sequence[str] = field(default=("uniqueness", "story_structure", "video_pacing"))

    @property
    def length_s(self) -> float:
        """Duration; by default the last frame lasts as long as the gap before it."""
        if self.duration_s is not None:
            return self.duration_s
        return float(2 * self.times_s[-1] - self.times_s[-2]) if len(self.times_s) > 1 else 5.0

    @property
    def own(self) -> np.ndarray:
        return np.arange(0, len(self.times_s), self.every, dtype=np.int32)

    def upstream(self) -> dict[str, Upstream]:
        union = len(self.times_s)
        axis = {"frame_indices": np.arange(union, dtype=np.int32), "times_s": self.times_s.astype(np.float64)}
        motion = np.zeros(union) if self.motion is None else self.motion
        measured = np.arange(union) > 0
        arrays: dict[str, dict[str, np.ndarray]] = {
            "segmenter": {
                "union_timestamps_sec": axis["times_s"],
                "component_names": np.array(self.names, dtype=np.str_),
                "component_indices": np.tile(self.own, len(self.names)),
                "component_indices_row_splits": np.arange(len(self.names) + 1, dtype=np.int64) * len(self.own),
            },
            "core_clip": {**axis, "frame_embeddings": self.vectors.astype(np.float32)},
            "core_optical_flow": {
                **axis,
                "motion_norm_per_sec_mean": np.where(measured, motion, np.nan).astype(np.float32),
                "pair_reliable_mask": measured if self.reliable is None else measured & self.reliable,
            },
            "core_face_landmarks": {
                **axis,
                "face_present": np.zeros(union, dtype=bool) if self.faces is None else self.faces,
            },
            "cut_detection": self._cuts(),
        }
        return {name: Upstream(name, "ok", None, found, {}) for name, found in arrays.items()}

    def _cuts(self) -> dict[str, np.ndarray]:
        events = sorted(
            [(time_s, "hard_cut") for time_s in self.cuts_s] + [(at, kind) for kind, at in self.other_events]
        )
        times_s = np.array([time_s for time_s, _ in events], dtype=np.float64)
        borders = np.array([0.0, *self.cuts_s, self.length_s])
        return {
            "event_type_id": np.array([EVENTS.index(kind) for _, kind in events], dtype=np.int16),
            "event_type_names": np.array(EVENTS),
            "event_time_s": times_s,
            "event_source_frame": np.round(times_s * self.dense_fps).astype(np.int64),
            "shot_start_time_s": borders[:-1],
            "shot_end_time_s": borders[1:],
        }

    def dense_signals(self) -> dict[str, np.ndarray]:
        rows = max(1, round(self.length_s * self.dense_fps))
        still = {"luma_mean": np.full(rows, 0.5, dtype=np.float32), "corrupt_mask": np.zeros(rows, dtype=bool)}
        return {**still, **(self.dense or {})}

    def inputs(self, component: ModuleType, **changes: Any) -> ComponentInputs:
        """Only what the component declares to read."""
        reads, upstream = component.SPEC.reads, self.upstream()
        frames = np.zeros((len(self.times_s), 36, 64, 3), dtype=np.uint8) if self.frames is None else self.frames
        samples = FrameSamples(self.own, self.times_s[self.own], ArrayReader(frames))
        given = {
            "video": VideoInfo(self.length_s, 64, 36, 30.0, 30.0),
            "upstream": {name: upstream[name] for name in component.SPEC.hard},
            "samples": samples if "frames" in reads else None,
            "dense": self.dense_signals() if "dense" in reads else None,
        }
        return ComponentInputs(**{**given, **changes})

    def run(self, component: ModuleType) -> Artifact:
        """Run a component and hold its artifact against its schema."""
        artifact: Artifact = component.run(self.inputs(component))
        assert schema_problems(component, artifact) == []
        return artifact


def even(count: int, gap_s: float) -> np.ndarray:
    """`count` times, `gap_s` apart from 0."""
    return np.arange(count) * gap_s


def turning(angles: np.ndarray) -> np.ndarray:
    """Unit vectors in the plane; the cosine of two is the cosine of the difference of their angles (radians)."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def random_units(count: int, width: int = 512, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, width))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def features(artifact: Artifact) -> dict[str, float]:
    names, values = artifact.arrays["feature_names"], artifact.arrays["feature_values"]
    return {str(name): float(value) for name, value in zip(names, values, strict=True)}
