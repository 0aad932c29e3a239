"""Motion, energy, repetition and pace, recomputed from docs/components.md and the arrays of other components."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from trendflow_tests.recompute.compare import assert_scalars, duration_s, part_of, reliable_motion, rows_of, unit
from trendflow_tests.recompute.stored import XDIST_GROUP, StoredRun

pytestmark = pytest.mark.xdist_group(XDIST_GROUP)

THIRDS = (1, 2, 3)


def change_rates(finished: StoredRun, component: str) -> np.ndarray:
    """(1 − cosine to the previous sample) / time between them, for the samples of a component."""
    own, clip = finished.arrays(component), finished.arrays("core_clip")
    vectors = unit(clip["frame_embeddings"][rows_of(own["frame_indices"], clip)])
    return np.append(np.nan, (1 - np.sum(vectors[1:] * vectors[:-1], axis=1)) / np.diff(own["times_s"]))


def test_optical_flow(finished: StoredRun) -> None:
    flow = finished.arrays("core_optical_flow")
    assert flow["pair_reliable_mask"].sum() > 20

    def reliable(name: str) -> np.ndarray:
        return flow[name][flow["pair_reliable_mask"]].astype(np.float64)

    motion = reliable("motion_norm_per_sec_mean")
    assert_scalars(
        finished,
        "optical_flow",
        {
            "motion_curve_mean": motion.mean(),
            "motion_curve_median": np.median(motion),
            "motion_curve_p90": np.percentile(motion, 90),
            "motion_curve_variance": np.mean((motion - motion.mean()) ** 2),
            "missing_frame_ratio": 1 - len(motion) / (len(flow["times_s"]) - 1),
            "high_motion_ratio": np.mean(motion >= 0.1),
            "static_ratio": np.mean(motion <= 0.005),
            "cam_shake_std_mean": np.nanmean(reliable("cam_shake_std_norm")),
            "cam_rotation_abs_mean": np.nanmean(np.abs(reliable("cam_rotation_per_sec"))),
            "cam_translation_abs_mean": np.nanmean(
                np.sqrt(reliable("cam_tx_per_sec_norm") ** 2 + reliable("cam_ty_per_sec_norm") ** 2)
            ),
            "cam_zoom_abs_mean": np.nanmean(np.abs(reliable("cam_zoom_rate_per_sec"))),
            "flow_dir_dispersion_mean": np.nanmean(reliable("flow_dir_dispersion")),
            "bg_ratio_mean": np.nanmean(reliable("bg_ratio")),
        },
    )


def test_story_structure_curve(finished: StoredRun) -> None:
    story, flow = finished.arrays("story_structure"), finished.arrays("core_optical_flow")
    times = story["times_s"]
    change = change_rates(finished, "story_structure")
    np.testing.assert_allclose(story["embedding_change_rate_per_sec"], change, rtol=1e-5, atol=1e-7)

    motion = reliable_motion(flow)[rows_of(story["frame_indices"], flow)]
    by_change, by_motion = 0.5 * np.log(1 + change / 0.03), 0.5 * np.log(1 + motion / 0.002)
    energy = np.where(
        np.isnan(by_change), 2 * by_motion, np.where(np.isnan(by_motion), 2 * by_change, by_change + by_motion)
    )
    measured = np.flatnonzero(np.isfinite(energy))
    curve = np.full(len(times), np.nan)
    for row in measured:
        weights = np.exp(-0.5 * (times[measured] - times[row]) ** 2)
        curve[row] = np.sum(weights * energy[measured]) / np.sum(weights)
    np.testing.assert_allclose(story["story_energy_curve"], curve, rtol=1e-5)
    np.testing.assert_array_equal(story["energy_valid_mask"], np.isfinite(energy))

    even = np.interp(np.linspace(0, duration_s(finished), 128), times[measured], curve[measured])
    np.testing.assert_allclose(story["story_energy_curve_downsampled_128"], even, rtol=1e-5)
    peaks, _ = scipy.signal.find_peaks(curve[measured], prominence=0.25)
    assert len(peaks), "the recut clip changes enough to have a peak"
    np.testing.assert_array_equal(story["story_energy_peaks_times_s"], times[measured][peaks])


def test_story_structure_scalars(finished: StoredRun) -> None:
    story, flow, cuts = (finished.arrays(name) for name in ("story_structure", "core_optical_flow", "cut_detection"))
    faces = finished.arrays("core_face_landmarks")
    times, duration = story["times_s"], duration_s(finished)
    curve = story["story_energy_curve"].astype(np.float64)
    finite = np.isfinite(curve)
    face = faces["face_present"][rows_of(story["frame_indices"], faces)]
    motion = reliable_motion(flow)[rows_of(story["frame_indices"], flow)]
    cut_times = cuts["event_time_s"][cuts["event_type_names"][cuts["event_type_id"]] == "hard_cut"]

    length = min(5.0, 0.15 * duration)
    opening = times <= length
    assert opening.sum() >= 3
    third = part_of(times, duration, 3)
    minutes = times[finite] / 60 - np.mean(times[finite] / 60)
    assert_scalars(
        finished,
        "story_structure",
        {
            "energy_mean": np.nanmean(curve),
            "energy_std": np.nanstd(curve),
            "energy_max": np.nanmax(curve),
            "climax_time_frac": times[np.nanargmax(curve)] / duration,
            "climax_energy_diff": np.nanmax(curve) - np.nanmean(curve),
            "peaks_per_min": 60 * len(story["story_energy_peaks_times_s"]) / duration,
            "energy_slope_per_min": np.sum(minutes * curve[finite]) / np.sum(minutes**2),
            "hook_energy_mean": np.nanmean(curve[opening]),
            "hook_energy_diff": np.nanmean(curve[opening]) - np.nanmean(curve[~opening]),
            "hook_cut_rate": np.sum((cut_times > 0) & (cut_times <= length)) / length,
            "hook_motion_mean": np.nanmean(motion[opening]),
            "hook_motion_spike_rate": np.sum(motion[opening] >= 0.2) / length,
            "hook_face_present_ratio": face[opening].mean(),
            **{f"energy_third_{k}_mean": np.nanmean(curve[third == k - 1]) for k in THIRDS},
            **{f"face_present_ratio_third_{k}": face[third == k - 1].mean() for k in THIRDS},
        },
        rtol=1e-5,  # of a curve that was stored in single precision itself
    )


def test_uniqueness(finished: StoredRun) -> None:
    own, clip = finished.arrays("uniqueness"), finished.arrays("core_clip")
    times, vectors = own["times_s"], unit(clip["frame_embeddings"][rows_of(own["frame_indices"], clip)])
    cosine = vectors @ vectors.T
    apart = np.abs(times[:, None] - times[None, :]) >= 2 - 1e-6
    highest = np.array([row[far].max() if far.any() else np.nan for row, far in zip(cosine, apart, strict=True)])
    successive = np.diagonal(cosine, 1)
    np.testing.assert_allclose(own["max_sim_to_other"], highest, rtol=1e-6)
    np.testing.assert_allclose(own["cos_dist_next"], 1 - successive, rtol=1e-5, atol=1e-7)

    eigenvalues = np.linalg.eigvalsh(cosine / len(cosine))
    eigenvalues = eigenvalues[eigenvalues > 1e-12]
    longest = begin = 0.0
    for k, cosine_to_next in enumerate(successive):
        begin = times[k] if k == 0 or successive[k - 1] < 0.95 else begin
        if cosine_to_next >= 0.95:
            longest = max(longest, times[k + 1] - begin)
    assert_scalars(
        finished,
        "uniqueness",
        {
            "repetition_ratio": np.mean(highest[np.isfinite(highest)] >= 0.95),
            "near_duplicate_ratio": np.mean(highest[np.isfinite(highest)] >= 0.98),
            "max_sim_mean": np.nanmean(highest),
            "max_sim_p90": np.nanpercentile(highest, 90),
            "mean_pairwise_distance": np.mean((1 - cosine)[apart]),
            "effective_count_frac": np.exp(-np.sum(eigenvalues * np.log(eigenvalues))) / len(times),
            "first_last_similarity": cosine[0, -1],
            "longest_similar_run_s": longest,
        },
    )


def cie_lab(rgb: np.ndarray) -> np.ndarray:
    """CIE 1976 L*a*b* of sRGB in [0, 1] for the white D65, after IEC 61966-2-1 and CIE 15."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    relative = linear @ to_xyz.T / to_xyz.sum(axis=1)
    f = np.where(relative > 216 / 24389, np.cbrt(relative), (24389 / 27 * relative + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def area_weights(size: int, parts: int) -> np.ndarray:
    """Share of each of `size` pixels in the mean of each of `parts` equal stretches, `[parts, size]`."""
    edges = np.linspace(0, size, parts + 1)
    overlap = np.minimum(edges[1:, None], np.arange(1, size + 1)) - np.maximum(edges[:-1, None], np.arange(size))
    return np.asarray(np.maximum(overlap, 0) * parts / size)


def test_video_pacing_change(finished: StoredRun) -> None:
    pace, clip = finished.arrays("video_pacing"), finished.arrays("core_clip")
    times = pace["times_s"]
    semantic = change_rates(finished, "video_pacing")
    np.testing.assert_allclose(pace["semantic_change_rate_per_sec"], semantic, rtol=1e-5, atol=1e-7)

    frames = finished.frames(pace["frame_indices"])
    down, across = area_weights(frames.shape[1], 36), area_weights(frames.shape[2], 64)
    small = np.stack([np.tensordot(np.tensordot(down, frame / 255, 1), across, (1, 1)) for frame in frames])
    small = small.transpose(0, 1, 3, 2)
    difference = np.sqrt(np.sum(np.diff(cie_lab(small), axis=0) ** 2, axis=-1)).mean(axis=(1, 2))
    color = np.append(np.nan, difference / np.diff(times))
    # The coefficients of sRGB are printed with four digits in the standard and with seven in other sources.
    np.testing.assert_allclose(pace["color_change_rate_per_sec"], color, rtol=1e-3)

    vectors = unit(clip["frame_embeddings"][rows_of(pace["frame_indices"], clip)])
    lag = times[None, :] - times[:, None]
    second_apart = (lag >= 0.75 - 1e-6) & (lag <= 1.25 + 1e-6)
    assert_scalars(
        finished,
        "video_pacing",
        {
            "semantic_change_rate_mean": np.nanmean(semantic),
            "semantic_change_rate_std": np.nanstd(semantic),
            "semantic_change_rate_p90": np.nanpercentile(semantic, 90),
            "high_semantic_change_ratio": np.mean(semantic[1:] >= 0.3),
            "semantic_change_1s_mean": np.mean((1 - vectors @ vectors.T)[second_apart]),
            "pair_dt_median_s": np.median(np.diff(times)),
        },
    )
    assert_scalars(
        finished,
        "video_pacing",
        {
            "color_change_rate_mean": np.nanmean(color),
            "color_change_rate_std": np.nanstd(color),
            "color_change_rate_p90": np.nanpercentile(color, 90),
        },
        rtol=1e-3,
    )


def test_video_pacing_editing(finished: StoredRun) -> None:
    pace, cuts, dense = finished.arrays("video_pacing"), finished.arrays("cut_detection"), finished.dense()
    flow, duration = finished.arrays("core_optical_flow"), duration_s(finished)
    hard = cuts["event_type_names"][cuts["event_type_id"]] == "hard_cut"
    cut_times, cut_frames = cuts["event_time_s"][hard], cuts["event_source_frame"][hard]
    assert len(cut_times) >= 2
    density = np.array([np.sum(part_of(cut_times, duration, 8) == k) / (duration / 8) for k in range(8)])
    np.testing.assert_allclose(pace["cut_density_8"], density, rtol=1e-6)

    luma = dense["luma_mean"].astype(np.float64)
    spikes = [
        frame
        for frame in range(1, len(luma))
        if abs(luma[frame] - luma[frame - 1]) >= 0.1
        and not dense["corrupt_mask"][frame - 1 : frame + 1].any()
        and np.abs(cut_frames - frame).min() > 1
    ]
    assert spikes, "the recut clip holds a flash"
    start, end = cuts["shot_start_time_s"], cuts["shot_end_time_s"]
    place, length = (start + end) / 2 / duration, end - start
    logs, centred = np.log(length), place - place.mean()
    third = part_of(place, 1.0, 3)
    middle = (flow["times_s"][1:] + flow["times_s"][:-1]) / 2
    pair_third, motion = part_of(middle, duration, 3), reliable_motion(flow)[1:]
    assert_scalars(
        finished,
        "video_pacing",
        {
            "luma_spikes_per_min": 60 * len(spikes) / duration,
            "pace_slope": np.sum(centred * logs) / np.sum(centred**2),
            "pace_early_late_diff": logs[third == 2].mean() - logs[third == 0].mean(),
            "intro_shot_duration_median_s": np.median(length[place <= 0.15]),
            "main_shot_duration_median_s": np.median(length[(place > 0.15) & (place < 0.85)]),
            "outro_shot_duration_median_s": np.median(length[place >= 0.85]),
            "cuts_per_10s_max": max(np.sum((cut_times >= t) & (cut_times < t + 10)) for t in cut_times),
            "cut_density_std": density.std(),
            **{f"motion_third_{k}_mean": np.nanmean(motion[pair_third == k - 1]) for k in THIRDS},
        },
    )
