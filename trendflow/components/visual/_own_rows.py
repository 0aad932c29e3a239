"""The frames assigned to a component, and the rows that providers hold for them.

Frames are matched by their position in the union, exactly: a provider without one of them is an error, and nothing is
taken from a neighbouring frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trendflow.components.base import ComponentInputs, FrameSamples, Upstream
from trendflow.contracts.errors import TrendFlowError

_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class OwnFrames:
    """Positions in the union and times of the frames assigned to a component."""

    frame_indices: np.ndarray  # int32 [N], increasing
    times_s: np.ndarray  # float64 [N], increasing

    def __len__(self) -> int:
        return len(self.frame_indices)

    @classmethod
    def of(cls, samples: FrameSamples) -> OwnFrames:
        return cls(samples.frame_indices.astype(np.int32), samples.times_s.astype(np.float64))

    def arrays(self) -> dict[str, np.ndarray]:
        """The standard members `frame_indices` and `times_s`."""
        return {"frame_indices": self.frame_indices, "times_s": self.times_s}


def need_upstream(inputs: ComponentInputs, name: str) -> Upstream:
    """A hard dependency. Raises `dependency_missing` when its artifact was not passed on."""
    if name not in inputs.upstream:
        raise TrendFlowError("dependency_missing", f"The {name} artifact is missing.", kind="artifact")
    return inputs.upstream[name]


def assigned_frames(inputs: ComponentInputs, component: str) -> OwnFrames:
    """What the Segmenter assigned to a component that looks at no pictures, from the segmenter artifact.

    Raises `dependency_missing` when nothing was assigned.
    """
    arrays = need_upstream(inputs, "segmenter").arrays
    names = arrays["component_names"].tolist()
    indices = np.empty(0, dtype=np.int32)
    if component in names:
        splits = arrays["component_indices_row_splits"]
        row = names.index(component)
        indices = arrays["component_indices"][splits[row] : splits[row + 1]].astype(np.int32)
    if len(indices) == 0:
        raise TrendFlowError("dependency_missing", f"No frames were assigned to {component}.", kind="frame_indices")
    return OwnFrames(indices, arrays["union_timestamps_sec"][indices].astype(np.float64))


def provider_rows(frames: OwnFrames, provider: Upstream) -> np.ndarray:
    """Row of every own frame in the arrays of a provider, int64 `[N]`.

    Raises `artifact_validation_failed` when the provider lacks a frame or states another time for it.
    """
    theirs = provider.arrays["frame_indices"]
    rows = np.searchsorted(theirs, frames.frame_indices)
    lacking = ~np.isin(frames.frame_indices, theirs)
    if lacking.any():
        raise TrendFlowError(
            "artifact_validation_failed",
            f"{provider.name} lacks {int(lacking.sum())} of the {len(frames)} assigned frames.",
        )
    if not np.array_equal(provider.arrays["times_s"][rows], frames.times_s):
        raise TrendFlowError("artifact_validation_failed", f"{provider.name} has other times for the same frames.")
    return rows


def unit_embeddings(frames: OwnFrames, clip: Upstream) -> np.ndarray:
    """Embeddings of the own frames as unit vectors, float64 `[N, D]`.

    Raises `artifact_validation_failed` when a row differs from length 1 by more than 1e-3. Within that it is scaled
    again, so that the cosine of equal rows is 1 to double precision and a still picture has no change.
    """
    vectors = clip.arrays["frame_embeddings"][provider_rows(frames, clip)].astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.abs(lengths - 1.0) <= _UNIT_TOLERANCE).all():
        raise TrendFlowError("artifact_validation_failed", f"A row of {clip.name} is not of unit length.")
    return np.asarray(vectors / lengths)


def successive_cosines(vectors: np.ndarray) -> np.ndarray:
    """Cosine of unit rows `[N, D]` with their predecessors, float64 `[N-1]`."""
    return np.asarray(np.clip(np.einsum("nd,nd->n", vectors[1:], vectors[:-1]), -1.0, 1.0))


def per_second(differences: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Differences of successive samples `[N-1]` over the time between them, 1/s `[N]`; row 0 is NaN."""
    rates = np.full(len(times_s), np.nan)
    rates[1:] = differences / np.diff(times_s)
    return rates


def reliable_motion(flow: Upstream) -> np.ndarray:
    """Mean motion of every pair of the flow provider in frame lengths/s, float64; NaN where it is unreliable."""
    arrays = flow.arrays
    motion = arrays["motion_norm_per_sec_mean"].astype(np.float64)
    return np.where(arrays["pair_reliable_mask"], motion, np.nan)


def hard_cuts(cuts: Upstream) -> np.ndarray:
    """bool `[E]`: which events of the cut detection are hard cuts."""
    names = cuts.arrays["event_type_names"].tolist()
    return np.asarray(cuts.arrays["event_type_id"] == names.index("hard_cut"))
