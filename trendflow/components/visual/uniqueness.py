"""uniqueness: how much of a video repeats itself in embedding space.

Only frames at least `min_lag_s` apart, to the microsecond, are compared, so that dense sampling creates no repetition.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from trendflow.components.base import ComponentInputs, ComponentSpec
from trendflow.components.visual import _summary
from trendflow.components.visual._own_rows import assigned_frames, need_upstream, successive_cosines, unit_embeddings
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.thresholds import THRESHOLDS

SPEC = ComponentSpec(
    name="uniqueness",
    producer_version="1.0.0",
    schema_version="uniqueness_npz_v5",
    hard=("segmenter", "core_clip"),
    reference=THRESHOLDS.reference,
)


@dataclass(frozen=True)
class UniquenessConstants:
    """Lag in seconds, the rest cosines."""

    min_lag_s: float
    repetition_cosine: float
    near_duplicate_cosine: float
    similar_run_cosine: float


UNIQUENESS = THRESHOLDS.bind("uniqueness", UniquenessConstants)

# Times are ticks times a time base; without this two samples exactly the lag apart would be a matter of rounding.
_TIME_TOLERANCE_S = 1e-6


@dataclass(frozen=True)
class Pairs:
    """Cosines of all pairs of frames and which of them count."""

    cosine: np.ndarray  # float64 [N, N]
    eligible: np.ndarray  # bool [N, N], symmetric

    @classmethod
    def of(cls, vectors: np.ndarray, times_s: np.ndarray) -> Pairs:
        """`vectors`: unit rows `[N, D]`, in any order as long as `times_s` `[N]` has the same."""
        lag_s = np.abs(times_s[:, None] - times_s[None, :])
        cosine = np.clip(vectors @ vectors.T, -1.0, 1.0)
        return cls(cosine, lag_s >= UNIQUENESS.min_lag_s - _TIME_TOLERANCE_S)

    @property
    def highest(self) -> np.ndarray:
        """Highest cosine of each frame with any eligible other, float64 `[N]`; NaN without one."""
        highest = np.where(self.eligible, self.cosine, -np.inf).max(axis=1)
        return np.where(self.eligible.any(axis=1), highest, np.nan)

    def features(self) -> dict[str, float]:
        """Scalars that do not depend on the order of the frames."""
        highest = self.highest
        found = highest[np.isfinite(highest)]
        return {
            "repetition_ratio": _summary.mean(found >= UNIQUENESS.repetition_cosine),
            "near_duplicate_ratio": _summary.mean(found >= UNIQUENESS.near_duplicate_cosine),
            "max_sim_mean": _summary.mean(found),
            "max_sim_p90": _summary.percentile(found, 90),
            "mean_pairwise_distance": _summary.mean(1.0 - self.cosine[self.eligible]),
            "effective_count_frac": effective_count(self.cosine) / len(self.cosine),
        }


def run(inputs: ComponentInputs) -> Artifact:
    """Arrays `max_sim_to_other` [N] and `cos_dist_next` [N-1] with the frames' indices and times, and the scalars.

    Empty (`too_few_frames`) when no two frames are far enough apart. Raises `dependency_missing` (no embeddings, no
    assigned frames) or `artifact_validation_failed` (embeddings of other frames, rows not of unit length).
    """
    started = time.perf_counter()
    frames = assigned_frames(inputs, SPEC.name)
    vectors = unit_embeddings(frames, need_upstream(inputs, "core_clip"))
    pairs, successive = Pairs.of(vectors, frames.times_s), successive_cosines(vectors)
    measurable = bool(pairs.eligible.any())
    features = {
        **pairs.features(),
        "first_last_similarity": float(pairs.cosine[0, -1]),
        "longest_similar_run_s": longest_run_s(successive >= UNIQUENESS.similar_run_cosine, frames.times_s),
    }
    if not measurable:
        features = dict.fromkeys(features, float("nan"))
        successive = np.full_like(successive, np.nan)
    return Artifact(
        arrays={
            **frames.arrays(),
            "max_sim_to_other": pairs.highest.astype(np.float32),
            "cos_dist_next": (1.0 - successive).astype(np.float32),
            **feature_arrays(features),
        },
        status="ok" if measurable else "empty",
        empty_reason=None if measurable else "too_few_frames",
        meta={"thresholds_version": THRESHOLDS.version},
        stage_timings_ms={"pairs": (time.perf_counter() - started) * 1e3},
    )


def effective_count(cosine: np.ndarray) -> float:
    """How many different frames there are: exp of the entropy of the eigenvalues of the Gram matrix ÷ N.

    `cosine` `[N, N]` is the Gram matrix of unit vectors; the eigenvalues sum to 1. k orthogonal groups of equal
    frames give k, equal frames 1, orthogonal ones N (Friedman and Dieng, "The Vendi Score", 2023).
    """
    shares = np.linalg.eigvalsh(cosine / len(cosine))
    shares = shares[shares > 0]  # rounding makes some zeros negative
    shares /= shares.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def longest_run_s(similar: np.ndarray, times_s: np.ndarray) -> float:
    """Time from the first to the last sample of the longest run of similar successive samples; 0 without a run.

    `similar` bool `[N-1]` says of samples k and k+1 that they are; `times_s` float64 `[N]`.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], similar, [False]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    return float((times_s[ends] - times_s[starts]).max(initial=0.0))
