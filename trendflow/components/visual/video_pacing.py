"""video_pacing: how fast the picture changes, and how that develops over the video.

Rates are per second of video between successive samples; statistics of shots as such stay in cut detection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trendflow.components.base import ComponentInputs, ComponentSpec, Upstream
from trendflow.components.visual import _summary
from trendflow.components.visual._colour import lab_rasters, mean_delta_e
from trendflow.components.visual._frame_batches import StageTimer, over_frames
from trendflow.components.visual._own_rows import (
    OwnFrames,
    hard_cuts,
    need_upstream,
    per_second,
    reliable_motion,
    successive_cosines,
    unit_embeddings,
)
from trendflow.components.visual._pace import MIN_SHOTS_FOR_SLOPE, cut_density, most_cuts_within, shot_features
from trendflow.components.visual._time_course import part_means
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.thresholds import THRESHOLDS

SPEC = ComponentSpec(
    name="video_pacing",
    producer_version="1.0.0",
    schema_version="video_pacing_npz_v4",
    hard=("segmenter", "core_clip", "core_optical_flow", "cut_detection"),
    reads=("frames", "dense"),
    reference=THRESHOLDS.reference,
)


@dataclass(frozen=True)
class PacingConstants:
    """Times in seconds, the rate in cosine distance per second, luma and shares of full scale or length."""

    min_samples: int
    high_semantic_rate: float
    fixed_lag_s: float
    fixed_lag_tolerance_s: float
    luma_spike: float
    luma_spike_cut_frames: int
    cut_window_s: float
    intro_share: float
    outro_share: float


PACING = THRESHOLDS.bind("video_pacing", PacingConstants)

_BATCH = 32  # pictures; bounds the memory for frames at analysis size
# Times are ticks times a time base; without this a lag exactly on the border would be a matter of rounding.
_TIME_TOLERANCE_S = 1e-6


@dataclass(frozen=True)
class _Change:
    """What changes between samples; float64 `[N]`, row 0 NaN."""

    semantic_rate: np.ndarray  # cosine distance per second
    color_rate: np.ndarray  # ΔE per second


def run(inputs: ComponentInputs) -> Artifact:
    """Arrays `semantic_change_rate_per_sec` [N], `color_change_rate_per_sec` [N], `cut_density_8` [8] and the scalars.

    Empty (`too_few_frames`) below 8 samples. Raises `dependency_missing` (no frames, embeddings, motion, cuts or
    dense signals) or `artifact_validation_failed` (embeddings of other frames, cuts of another video).
    """
    samples, timer = inputs.need_samples(), StageTimer()
    dense, cuts = inputs.need_dense(), need_upstream(inputs, "cut_detection")
    flow = need_upstream(inputs, "core_optical_flow")
    frames, duration_s = OwnFrames.of(samples), inputs.video.duration_sec
    vectors = unit_embeddings(frames, need_upstream(inputs, "core_clip"))

    lab = np.concatenate(over_frames(inputs, samples, lab_rasters, _BATCH, timer))
    with timer.stage("statistics"):
        change = _Change(
            per_second(1.0 - successive_cosines(vectors), frames.times_s),
            per_second(mean_delta_e(lab), frames.times_s),
        )
        density = cut_density(cuts.arrays["event_time_s"][hard_cuts(cuts)], duration_s)
        features = {
            **_change_features(change),
            "semantic_change_1s_mean": fixed_lag_change(vectors, frames.times_s),
            **_motion_features(flow, duration_s),
            **_editing_features(cuts, dense, duration_s),
            "cut_density_std": _summary.std(density),
            "pair_dt_median_s": _summary.median(np.diff(frames.times_s)),
        }
    empty = len(frames) < PACING.min_samples
    if empty:
        features = dict.fromkeys(features, float("nan"))
        nothing = np.full(len(frames), np.nan)
        change, density = _Change(nothing, nothing), np.full_like(density, np.nan)
    return Artifact(
        arrays={
            **frames.arrays(),
            "semantic_change_rate_per_sec": change.semantic_rate.astype(np.float32),
            "color_change_rate_per_sec": change.color_rate.astype(np.float32),
            "cut_density_8": density.astype(np.float32),
            **feature_arrays(features),
        },
        status="empty" if empty else "ok",
        empty_reason="too_few_frames" if empty else None,
        meta={
            "thresholds_version": THRESHOLDS.version,
            "absent_features": {} if empty else _absent(features),
        },
        stage_timings_ms=timer.timings_ms(),
    )


def _change_features(change: _Change) -> dict[str, float]:
    features: dict[str, float] = {}
    for name, rate in (("semantic", change.semantic_rate), ("color", change.color_rate)):
        features[f"{name}_change_rate_mean"] = _summary.mean(rate)
        features[f"{name}_change_rate_std"] = _summary.std(rate)
        features[f"{name}_change_rate_p90"] = _summary.percentile(rate, 90)
    measured = change.semantic_rate[np.isfinite(change.semantic_rate)]
    features["high_semantic_change_ratio"] = _summary.mean(measured >= PACING.high_semantic_rate)
    return features


def fixed_lag_change(vectors: np.ndarray, times_s: np.ndarray) -> float:
    """Mean cosine distance of all pairs of frames about 1 s apart; NaN where no pair is.

    Unlike the rates it does not depend on how densely a video is sampled. `vectors`: unit rows `[N, D]`.
    """
    lag_s = times_s[None, :] - times_s[:, None]
    pairs = np.abs(lag_s - PACING.fixed_lag_s) <= PACING.fixed_lag_tolerance_s + _TIME_TOLERANCE_S
    return _summary.mean(1.0 - np.clip(vectors @ vectors.T, -1.0, 1.0)[pairs])


def _motion_features(flow: Upstream, duration_s: float) -> dict[str, float]:
    """Mean motion in each third, over all reliable pairs of the provider; a pair lies where its middle is."""
    times_s = flow.arrays["times_s"]
    middle_s = times_s - np.diff(times_s, prepend=times_s[0]) / 2
    means = part_means(reliable_motion(flow), middle_s, duration_s, 3)
    return {f"motion_third_{number}_mean": mean for number, mean in enumerate(means, start=1)}


def _editing_features(cuts: Upstream, dense: Mapping[str, np.ndarray], duration_s: float) -> dict[str, float]:
    arrays, hard = cuts.arrays, hard_cuts(cuts)
    return {
        "luma_spikes_per_min": luma_spikes(dense, arrays["event_source_frame"][hard]) * 60.0 / duration_s,
        **shot_features(
            arrays["shot_start_time_s"],
            arrays["shot_end_time_s"],
            duration_s,
            PACING.intro_share,
            PACING.outro_share,
        ),
        "cuts_per_10s_max": most_cuts_within(arrays["event_time_s"][hard], PACING.cut_window_s),
    }


def luma_spikes(dense: Mapping[str, np.ndarray], cut_frames: np.ndarray) -> int:
    """Steps of mean luma between source frames that no hard cut explains.

    Damaged frames tell nothing of the picture, and a cut is known to within a frame. Raises
    `artifact_validation_failed` for a cut at a frame the dense signals do not have.
    """
    luma, corrupt = dense["luma_mean"].astype(np.float64), dense["corrupt_mask"]
    if len(cut_frames) and not 0 <= cut_frames.min() <= cut_frames.max() < len(luma):
        raise TrendFlowError("artifact_validation_failed", "A cut lies at a frame the dense signals do not have.")
    step = np.zeros(len(luma), dtype=bool)
    step[1:] = (np.abs(np.diff(luma)) >= PACING.luma_spike) & ~corrupt[1:] & ~corrupt[:-1]
    reach = PACING.luma_spike_cut_frames
    explained = cut_frames[:, None] + np.arange(-reach, reach + 1)
    step[np.clip(explained, 0, len(luma) - 1)] = False
    return int(step.sum())


def _absent(features: Mapping[str, float]) -> dict[str, str]:
    """Why a value is NaN although the component ran."""
    reasons = {
        "semantic_change_1s_mean": (
            f"no two samples are {PACING.fixed_lag_s:g} ± {PACING.fixed_lag_tolerance_s:g} s apart"
        ),
        **{f"motion_third_{number}_mean": "no reliable motion in this third" for number in (1, 2, 3)},
        "pace_slope": f"the video has fewer than {MIN_SHOTS_FOR_SLOPE} shots",
        "pace_early_late_diff": "no shot is centred in the first or in the last third",
        "intro_shot_duration_median_s": "no shot is centred in the opening",
        "main_shot_duration_median_s": "no shot is centred in the main part",
        "outro_shot_duration_median_s": "no shot is centred in the ending",
    }
    return {name: reason for name, reason in reasons.items() if np.isnan(features[name])}
