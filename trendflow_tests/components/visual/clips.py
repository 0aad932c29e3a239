"""Frames for component tests, decoded with PyAV alone, and ways to run a component on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np

from trendflow.components.base import ComponentInputs, FrameSamples, Upstream, VideoInfo
from trendflow.contracts.artifact import Artifact, ModelUsed
from trendflow.contracts.canonical import content_digest
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.meta import build_meta
from trendflow.contracts.schema import SchemaRegistry, validate_artifact
from trendflow.models.batching import BatchRunner
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.interface import ModelHandle
from trendflow.models.pool import ModelPool

ENTRIES = {
    "image_encoder": "efficientnet_lite0_224",
    "object_detector": "nanodet_m_416",
    "face_detector": "centerface_640",
    "face_landmarks": "facemesh_192",
}
SHORTER_SIDE = 320
TIME_TOLERANCE_S = 0.001
IDENTITY = RunIdentity("upload", "clip_1", "run_1", "c" * 64, "sampling_v1", "0.1.0")


@dataclass(frozen=True)
class ArrayReader:
    """Random access to frames held in memory; counts how often each was read."""

    frames: np.ndarray
    reads: list[int] = field(default_factory=list)

    def read(self, union_indices: np.ndarray) -> np.ndarray:
        self.reads.extend(int(index) for index in union_indices)
        return self.frames[union_indices]


@dataclass(frozen=True)
class Clip:
    """uint8 frames `[n, H, W, 3]` RGB and their times in seconds."""

    frames: np.ndarray
    times_s: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, rows: Any) -> Clip:
        return Clip(self.frames[rows], self.times_s[rows])

    def mirrored(self) -> Clip:
        return Clip(np.ascontiguousarray(self.frames[:, :, ::-1]), self.times_s)


def clip_of(frames: np.ndarray, gap_s: float = 0.25) -> Clip:
    return Clip(frames, np.arange(len(frames)) * gap_s)


def flat_clip(value: int, n: int = 3, height: int = 320, width: int = 568) -> Clip:
    """`n` frames of one grey value."""
    return clip_of(np.full((n, height, width, 3), value, dtype=np.uint8))


def decode(path: Path, gap_s: float, windows: Sequence[tuple[float, float]] = ((0.0, np.inf),)) -> Clip:
    """Frames at least `gap_s` apart inside the time windows, scaled so that the shorter side is 320 px."""
    frames: list[np.ndarray] = []
    times: list[float] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        ratio = min(1.0, SHORTER_SIDE / min(stream.width, stream.height))
        width, height = (round(side * ratio / 2) * 2 for side in (stream.width, stream.height))
        due = 0.0
        for frame in container.decode(stream):
            if frame.time >= due - TIME_TOLERANCE_S:
                due = frame.time + gap_s
                if any(start <= frame.time < stop for start, stop in windows):
                    frames.append(frame.to_ndarray(format="rgb24", interpolation="LANCZOS", width=width, height=height))
                    times.append(frame.time)
    return Clip(np.stack(frames), np.array(times))


@dataclass(frozen=True)
class Respecified:
    """A loaded model whose entry states something else than the weights are."""

    handle: ModelHandle
    entry: CatalogueEntry

    @classmethod
    def of(cls, handle: ModelHandle, **changes: Any) -> Respecified:
        return cls(handle, handle.entry.model_copy(update=changes))

    @property
    def used(self) -> ModelUsed:
        return self.handle.used

    @property
    def device_used(self) -> str:
        return self.handle.device_used

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self.handle.infer(inputs)


class Bench:
    """Runs visual components on clips with the shipped models."""

    def __init__(self, pool: ModelPool, schemas: SchemaRegistry) -> None:
        catalogue = Catalogue.load()
        self.models: dict[str, ModelHandle] = {role: pool.get(catalogue[name]) for role, name in ENTRIES.items()}
        self.schemas = schemas

    def run(
        self,
        module: ModuleType,
        clip: Clip,
        *,
        upstream: Artifact | Upstream | None = None,
        batch_size: int = 8,
        models: Mapping[str, ModelHandle] | None = None,
        **params: Any,
    ) -> Artifact:
        """Run a component and check its artifact against its schema. `upstream` is that of the object detections."""
        inputs = self.inputs(module, clip, batch_size=batch_size, models=models, **params)
        if upstream is not None:
            inputs = replace(inputs, upstream={"core_object_detections": as_upstream(upstream)})
        artifact: Artifact = module.run(inputs)
        assert self.problems(module, artifact, len(clip)) == []
        return artifact

    def inputs(
        self,
        module: ModuleType,
        clip: Clip,
        *,
        batch_size: int = 8,
        models: Mapping[str, ModelHandle] | None = None,
        **params: Any,
    ) -> ComponentInputs:
        height, width = clip.frames.shape[1:3]
        return ComponentInputs(
            video=VideoInfo(float(clip.times_s[-1]) + 0.25, width, height, 30.0, 30.0),
            upstream={},
            samples=FrameSamples(np.arange(len(clip), dtype=np.int32), clip.times_s, ArrayReader(clip.frames)),
            models={**{role: self.models[role] for role in module.SPEC.roles if role in self.models}, **(models or {})},
            params={**{name: param.default for name, param in module.SPEC.params.items()}, **params},
            runner=BatchRunner(batch_size=batch_size),
        )

    def problems(self, module: ModuleType, artifact: Artifact, total_frames: int) -> list[str]:
        spec = module.SPEC
        meta = build_meta(
            IDENTITY,
            artifact,
            producer=spec.name,
            producer_version=spec.producer_version,
            schema_version=spec.schema_version,
            idempotency_key="1" * 64,
            input_digest="2" * 64,
            content_digest=content_digest(
                spec.name, spec.schema_version, artifact.status, artifact.empty_reason, artifact.arrays
            ),
        )
        return validate_artifact(self.schemas, artifact.arrays, meta, total_frames=total_frames)


def as_upstream(source: Artifact | Upstream) -> Upstream:
    """An artifact of the object detections as its reader sees it."""
    if isinstance(source, Upstream):
        return source
    return Upstream("core_object_detections", source.status, source.empty_reason, source.arrays, source.meta)


def features(artifact: Artifact) -> dict[str, float]:
    names, values = artifact.arrays["feature_names"], artifact.arrays["feature_values"]
    return {str(name): float(value) for name, value in zip(names, values, strict=True)}


def assert_same(a: Artifact, b: Artifact, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    """Equal status and keys; numbers equal within the tolerance, everything else exactly."""
    assert (a.status, a.empty_reason, set(a.arrays)) == (b.status, b.empty_reason, set(b.arrays))
    for name, array in a.arrays.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(b.arrays[name], array, rtol=rtol, atol=atol, err_msg=name)
        else:
            np.testing.assert_array_equal(b.arrays[name], array, err_msg=name)
