"""The interface between components and the wrapper that runs them.

A component module exposes two names: `SPEC`, a `ComponentSpec`, and `run(inputs: ComponentInputs) -> Artifact`.
It opens no file, imports no orchestration and reads nothing but its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from trendflow.contracts.artifact import Artifact
from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema_lock import normative
from trendflow.contracts.schema_types import ArtifactSchema
from trendflow.contracts.video_document import VideoDocument
from trendflow.models.batching import BatchRunner
from trendflow.models.interface import ModelHandle

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Param:
    """A typed component parameter; it enters `config_hash` with its default filled in.

    `kind` is bool, int, float or str and is taken from the default unless given; a None default must give it.
    `nullable` allows None besides.
    """

    default: Any
    doc: str
    kind: type | None = None
    nullable: bool = False

    def __post_init__(self) -> None:
        if self.value_type not in (bool, int, float, str):
            raise TrendFlowError("internal_error", "A parameter must be declared as bool, int, float or str.")
        if not self.accepts(self.default):
            raise TrendFlowError("internal_error", f"The default {self.default!r} breaks its own declaration.")

    @property
    def value_type(self) -> type:
        return type(self.default) if self.kind is None else self.kind

    def accepts(self, value: Any) -> bool:
        """Whether a profile may set `value`: an int may stand for a float, a bool stands for nothing else."""
        if value is None:
            return self.nullable
        if isinstance(value, bool) or self.value_type is bool:
            return isinstance(value, bool) and self.value_type is bool
        if self.value_type is float:
            return isinstance(value, int | float) and math.isfinite(value)
        return isinstance(value, self.value_type)

    def normalised(self, value: Any) -> Any:
        """An accepted value in the form that is hashed and passed on: 10 and 10.0 are one setting."""
        return float(value) if self.value_type is float and value is not None else value


@dataclass(frozen=True)
class ComponentSpec:
    """What the code of a component declares; `component_graph.yaml` must agree or loading fails.

    `soft` names components, or is the word `all` (see `trendflow.contracts.graph.ALL`). `reads` ⊆ {frames, audio,
    audio_full, dense, document, declarations}. `reference` maps the files whose content belongs to the input (prompt
    banks, thresholds) to their sha256.
    """

    name: str
    producer_version: str
    schema_version: str
    hard: tuple[str, ...]
    soft: tuple[str, ...] | Literal["all"] = ()
    reads: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    optional_roles: tuple[str, ...] = ()
    params: Mapping[str, Param] = field(default_factory=dict)
    reference: Mapping[str, str] = field(default_factory=dict)


class FrameReader(Protocol):
    """Random access to the union of sampled frames."""

    def read(self, union_indices: np.ndarray) -> np.ndarray:
        """uint8 `[n, H, W, 3]` RGB. An index outside the union raises `dependency_missing`."""
        ...


@dataclass(frozen=True)
class VideoInfo:
    """Geometry and time axis of the analysed video. Times in seconds, sizes in pixels, rates in frames per second.

    `source_fps` has the precision of float32: it comes from a feature.
    """

    duration_sec: float
    analysis_width: int
    analysis_height: int
    analysis_fps: float
    source_fps: float


@dataclass(frozen=True)
class FrameSamples:
    """The frames this component was assigned: `frame_indices` are positions in the union."""

    frame_indices: np.ndarray  # int32 [N]
    times_s: np.ndarray  # float64 [N]
    reader: FrameReader

    def __len__(self) -> int:
        return len(self.frame_indices)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames of samples start…stop as uint8 `[stop-start, H, W, 3]` RGB."""
        return self.reader.read(self.frame_indices[start:stop])


@dataclass(frozen=True)
class AudioWindows:
    """One audio family of `segments.json`; arrays over its windows."""

    family: str
    window_sec: float
    start_sec: np.ndarray  # float64 [N]
    end_sec: np.ndarray  # float64 [N]
    center_sec: np.ndarray  # float64 [N]
    mask: np.ndarray  # bool [N]


@dataclass(frozen=True)
class AudioInput:
    """Decoded audio. Sample 0 of both signals is video time 0; amplitudes are ±1 full scale.

    `mono` is what `audio.wav` holds, `full` what `audio_full.wav` holds (channels in `channel_layout` order).
    Without an audio stream `present` is False, `windows` is None and the signals are empty.
    """

    present: bool
    empty_reason: str | None
    windows: AudioWindows | None
    mono: np.ndarray  # float32 [n]
    mono_rate: int
    full: np.ndarray  # float32 [m, channels]
    full_rate: int
    channel_layout: str


@dataclass(frozen=True)
class Upstream:
    """An upstream artifact as its reader sees it. Only `ok` and `empty` artifacts are passed on."""

    name: str
    status: str
    empty_reason: str | None
    arrays: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]

    def feature(self, name: str) -> float:
        """A scalar feature by name. Raises `artifact_validation_failed` when the schema lacks it."""
        names = self.arrays["feature_names"].tolist()
        if name not in names:
            raise TrendFlowError("artifact_validation_failed", f"{self.name} has no feature {name!r}.")
        return float(self.arrays["feature_values"][names.index(name)])


@dataclass(frozen=True)
class Declaration:
    """What is known of a dependency before it ran, and stays known when it fails.

    `source_kind` ∈ {media, document, derived}: what its values were read off.
    """

    schema: ArtifactSchema
    producer_version: str
    source_kind: str

    @property
    def digest(self) -> str:
        """sha256 of everything that may shape the result of a reader of declarations."""
        return digest_of(
            {
                "schema": normative(self.schema.document),
                "producer_version": self.producer_version,
                "source_kind": self.source_kind,
            }
        )


def _no_progress(done: int, total: int) -> None:
    return None


@dataclass(frozen=True)
class ComponentInputs:
    """Everything a component may see. Members it does not declare in `reads` are None."""

    video: VideoInfo
    upstream: Mapping[str, Upstream]
    """Hard and available soft dependencies by name; a soft one that is absent is not in the map."""
    samples: FrameSamples | None = None
    audio: AudioInput | None = None
    dense: Mapping[str, np.ndarray] | None = None
    document: VideoDocument | None = None
    declarations: Mapping[str, Declaration] | None = None
    """Of every dependency that the profile enables, whether or not it gave a result."""
    models: Mapping[str, ModelHandle] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    runner: BatchRunner = field(default_factory=BatchRunner)
    progress: Progress = _no_progress

    def need_samples(self) -> FrameSamples:
        if self.samples is None or len(self.samples) == 0:
            raise TrendFlowError(
                "dependency_missing", "No frames were sampled for this component.", kind="frame_indices"
            )
        return self.samples

    def need_audio(self) -> AudioInput:
        if self.audio is None:
            raise TrendFlowError("dependency_missing", "No audio was provided to this component.", kind="audio_family")
        return self.audio

    def need_dense(self) -> Mapping[str, np.ndarray]:
        if self.dense is None:
            raise TrendFlowError("dependency_missing", "The dense signals are missing.", kind="artifact")
        return self.dense

    def need_document(self) -> VideoDocument:
        if self.document is None:
            raise TrendFlowError("dependency_missing", "The run has no document.", kind="document")
        return self.document

    def need_declarations(self) -> Mapping[str, Declaration]:
        if self.declarations is None:
            raise TrendFlowError("dependency_missing", "The declarations are missing.", kind="declarations")
        return self.declarations


class Component(Protocol):
    """A component module, seen as an object."""

    SPEC: ComponentSpec

    def run(self, inputs: ComponentInputs) -> Artifact: ...
