"""story_structure: the energy of a video over time and how it opens.

Built from what other components measured on the assigned frames; no picture is looked at.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trendflow.components.base import ComponentInputs, ComponentSpec
from trendflow.components.visual import _summary
from trendflow.components.visual._own_rows import (
    assigned_frames,
    hard_cuts,
    need_upstream,
    per_second,
    provider_rows,
    reliable_motion,
    successive_cosines,
    unit_embeddings,
)
from trendflow.components.visual._story_energy import STORY, downsampled, energy, peaks, smoothed
from trendflow.components.visual._time_course import part_means, slope
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.thresholds import THRESHOLDS

SPEC = ComponentSpec(
    name="story_structure",
    producer_version="1.0.0",
    schema_version="story_structure_npz_v4",
    hard=("segmenter", "core_clip", "core_optical_flow", "core_face_landmarks", "cut_detection"),
    reference=THRESHOLDS.reference,
)

_THIRDS = 3
HOOK_FEATURES = (
    "hook_energy_mean",
    "hook_energy_diff",
    "hook_cut_rate",
    "hook_motion_mean",
    "hook_motion_spike_rate",
    "hook_face_present_ratio",
)


def run(inputs: ComponentInputs) -> Artifact:
    """Arrays of the energy curve [N], its 128 even samples and its peaks [P], and the scalars.

    Empty (`too_few_frames`) below 8 samples. Raises `dependency_missing` (an upstream artifact, no assigned frames)
    or `artifact_validation_failed` (an upstream artifact of other frames, embeddings not of unit length).
    """
    started = time.perf_counter()
    frames, duration_s = assigned_frames(inputs, SPEC.name), inputs.video.duration_sec
    flow, faces = need_upstream(inputs, "core_optical_flow"), need_upstream(inputs, "core_face_landmarks")
    cuts = need_upstream(inputs, "cut_detection")
    vectors = unit_embeddings(frames, need_upstream(inputs, "core_clip"))
    change = per_second(1.0 - successive_cosines(vectors), frames.times_s)
    motion = reliable_motion(flow)[provider_rows(frames, flow)]
    face_present = faces.arrays["face_present"][provider_rows(frames, faces)]

    empty = len(frames) < STORY.min_samples
    raw = np.full(len(frames), np.nan) if empty else energy(change, motion)
    curve = smoothed(raw, frames.times_s, STORY.smoothing_sigma_s)
    found = peaks(curve, STORY.peak_prominence)
    hook = _Hook.of(frames.times_s, duration_s)
    features = {
        **_curve_features(curve, frames.times_s, duration_s, len(found)),
        **hook.features(curve, motion, face_present, cuts.arrays["event_time_s"][hard_cuts(cuts)]),
        **_thirds("face_present_ratio_third_{}", face_present, frames.times_s, duration_s),
    }
    if empty:
        features, change = dict.fromkeys(features, float("nan")), np.full_like(change, np.nan)
    return Artifact(
        arrays={
            **frames.arrays(),
            "story_energy_curve": curve.astype(np.float32),
            "energy_valid_mask": np.isfinite(curve),
            "embedding_change_rate_per_sec": change.astype(np.float32),
            "any_face_present": face_present,
            "story_energy_curve_downsampled_128": downsampled(curve, frames.times_s, duration_s).astype(np.float32),
            "story_energy_peaks_times_s": frames.times_s[found],
            "story_energy_peaks_values": curve[found].astype(np.float32),
            **feature_arrays(features),
        },
        status="empty" if empty else "ok",
        empty_reason="too_few_frames" if empty else None,
        meta={
            "thresholds_version": THRESHOLDS.version,
            "absent_features": {} if empty else _absent(features, hook),
        },
        stage_timings_ms={"curve": (time.perf_counter() - started) * 1e3},
    )


@dataclass(frozen=True)
class _Hook:
    """The opening of a video: its first 5 s, or 15 % of a short one."""

    length_s: float
    inside: np.ndarray  # bool [N]

    @classmethod
    def of(cls, times_s: np.ndarray, duration_s: float) -> _Hook:
        length_s = min(STORY.hook_max_s, STORY.hook_share * duration_s)
        return cls(length_s, times_s <= length_s)

    @property
    def samples(self) -> int:
        return int(self.inside.sum())

    def features(
        self, curve: np.ndarray, motion: np.ndarray, face_present: np.ndarray, cut_times_s: np.ndarray
    ) -> dict[str, float]:
        """Scalars of the opening; all NaN when too few samples lie in it."""
        if self.samples < STORY.hook_min_samples:
            return dict.fromkeys(HOOK_FEATURES, float("nan"))
        mean, moving = _summary.mean(curve[self.inside]), motion[self.inside]
        # What begins with the video is no cut.
        cuts = np.sum((cut_times_s > 0) & (cut_times_s <= self.length_s))
        # Where no motion was measured no spike was counted either.
        spikes = np.sum(moving >= STORY.motion_spike) if np.isfinite(moving).any() else float("nan")
        return {
            "hook_energy_mean": mean,
            "hook_energy_diff": mean - _summary.mean(curve[~self.inside]),
            "hook_cut_rate": float(cuts) / self.length_s,
            "hook_motion_mean": _summary.mean(moving),
            "hook_motion_spike_rate": float(spikes) / self.length_s,
            "hook_face_present_ratio": _summary.mean(face_present[self.inside]),
        }


def _curve_features(curve: np.ndarray, times_s: np.ndarray, duration_s: float, peak_count: int) -> dict[str, float]:
    highest, mean = _summary.maximum(curve), _summary.mean(curve)
    climax_s = float(times_s[np.nanargmax(curve)]) if np.isfinite(highest) else float("nan")
    return {
        "energy_mean": mean,
        "energy_std": _summary.std(curve),
        "energy_max": highest,
        "climax_time_frac": climax_s / duration_s,
        "climax_energy_diff": highest - mean,
        "peaks_per_min": peak_count * 60.0 / duration_s,
        "energy_slope_per_min": slope(times_s / 60.0, curve),
        **_thirds("energy_third_{}_mean", curve, times_s, duration_s),
    }


def _thirds(name: str, values: np.ndarray, times_s: np.ndarray, duration_s: float) -> dict[str, float]:
    means = part_means(values, times_s, duration_s, _THIRDS)
    return {name.format(number): mean for number, mean in enumerate(means, start=1)}


def _absent(features: Mapping[str, float], hook: _Hook) -> dict[str, str]:
    """Why a value is NaN although the component ran."""
    too_short = f"the opening of {hook.length_s:.2f} s holds {hook.samples} samples"
    for_hook = too_short if hook.samples < STORY.hook_min_samples else "no reliable motion in the opening"
    reasons = dict.fromkeys(HOOK_FEATURES, for_hook)
    for number in range(1, _THIRDS + 1):
        reasons[f"energy_third_{number}_mean"] = "no sample lies in this third"
        reasons[f"face_present_ratio_third_{number}"] = "no sample lies in this third"
    return {name: reason for name, reason in reasons.items() if np.isnan(features[name])}
