"""Synthetic arrays of the components that draw motion, quality, energy, pace and sound; the numbers are invented."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trendflow.contracts.artifact import feature_arrays

Arrays = dict[str, np.ndarray]

UNRELIABLE_SPEED = 3.0


def flow(times: np.ndarray, cuts: Sequence[float], rng: np.random.Generator) -> Arrays:
    """Motion over time; the pair across each cut is not reliable and far faster than anything else."""
    reliable = np.ones(len(times), bool)
    reliable[[0, *(int(np.searchsorted(times, cut)) for cut in cuts)]] = False
    speed = 0.02 + 0.015 * np.sin(times / 3)
    speed[~reliable] = UNRELIABLE_SPEED
    speed[0] = np.nan
    camera = {
        name: np.where(reliable, 0.04 * np.sin(times / (k + 1)), np.nan).astype(np.float32)
        for k, name in enumerate(
            ("cam_tx_per_sec_norm", "cam_ty_per_sec_norm", "cam_zoom_rate_per_sec", "cam_rotation_per_sec")
        )
    }
    shake = np.where(reliable, np.abs(rng.normal(0, 0.002, len(times))), np.nan)
    return {
        "times_s": times,
        "pair_reliable_mask": reliable,
        "motion_norm_per_sec_mean": speed.astype(np.float32),
        **camera,
        "cam_shake_std_norm": shake.astype(np.float32),
        **feature_arrays({"reliable_pair_ratio": 0.98}),
    }


def quality(times: np.ndarray, cuts: Sequence[float], rng: np.random.Generator) -> Arrays:
    """Frames around the mean of their shot: sharpness −2, −2.5, −3 … by shot, hardly any noise, no clipping."""
    shots = np.searchsorted(np.asarray(cuts), times, side="right").astype(np.int32)
    count = len(cuts) + 1
    names = ("sharpness_tenengrad_log", "noise_sigma", "underexposure_ratio", "overexposure_ratio")
    means = np.stack([-2.0 - 0.5 * np.arange(count), *(np.full(count, level) for level in (0.8, 0.1, 0.0))], axis=1)
    frames = means[shots] + rng.normal(0, 0.02, (len(times), len(names)))
    return {
        "times_s": times,
        "frame_feature_names": np.array(names),
        "frame_features": np.maximum(frames, [-9.0, 0.0, 0.0, 0.0]).astype(np.float32),
        "shot_ids": shots,
        "shot_features_mean": means.astype(np.float32),
        **feature_arrays({"blurry_shot_ratio": 0.5, "noise_sigma_mean": 0.8}),
    }


def story(times: np.ndarray, duration: float) -> Arrays:
    """One hump in the middle, which is the only peak."""
    energy = 1.0 + np.exp(-0.5 * ((times - duration / 2) / (duration / 10)) ** 2)
    return {
        "times_s": times,
        "story_energy_curve": energy.astype(np.float32),
        "story_energy_peaks_times_s": np.array([duration / 2]),
        "story_energy_peaks_values": np.array([2.0], np.float32),
        **feature_arrays({"climax_time_frac": 0.5, "hook_energy_diff": -0.25, "hook_face_present_ratio": 0.0}),
    }


def pace(times: np.ndarray, duration: float, cuts: Sequence[float], rng: np.random.Generator) -> Arrays:
    density = np.histogram(cuts, 8, (0.0, duration))[0] / (duration / 8)
    rates = np.abs(rng.normal(0, 1, (2, len(times))))
    rates[:, 0] = np.nan
    return {
        "times_s": times,
        "semantic_change_rate_per_sec": (0.05 * rates[0]).astype(np.float32),
        "color_change_rate_per_sec": (4 * rates[1]).astype(np.float32),
        "cut_density_8": density.astype(np.float32),
        **feature_arrays({"cuts_per_10s_max": 2, "semantic_change_rate_mean": 0.04, "color_change_rate_mean": 3.2}),
    }


def sound(duration: float) -> Arrays:
    """Unit vectors that turn by 60° from window to window, hence a distance of ½; the third window is silent."""
    centers = np.arange(1.5, max(duration, 6.0), 3.0)
    valid = np.ones(len(centers), bool)
    valid[2:3] = False
    angles = np.pi / 3 * np.arange(len(centers))
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vectors[~valid] = np.nan
    return {
        "segment_center_sec": centers,
        "segment_mask": valid,
        "embedding_sequence": vectors.astype(np.float32),
        **feature_arrays({"embedding_change_mean": 0.5}),
    }
