"""Where an array may hold NaN: the mask or the rule that says so, for every array whose schema allows NaN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from trendflow.contracts.schema_types import ArtifactSchema

Arrays = Mapping[str, np.ndarray]
Rows = Callable[[Arrays], np.ndarray]


@dataclass(frozen=True)
class Missing:
    """`rows` are bool `[N]`, or of the shape of the array. With `always` the array is NaN in all of them."""

    rows: Rows
    always: bool = True

    def faults(self, name: str, arrays: Arrays) -> list[str]:
        array, rows = arrays[name], np.asarray(self.rows(arrays))
        missing = np.isnan(array)
        stated = np.broadcast_to(rows.reshape(rows.shape + (1,) * (array.ndim - rows.ndim)), array.shape)
        found = []
        if (missing & ~stated).any():
            found.append(f"{name} is NaN where nothing says so: {np.argwhere(missing & ~stated)[:5].tolist()}")
        if self.always and (stated & ~missing).any():
            found.append(
                f"{name} has values that are said to be missing: {np.argwhere(stated & ~missing)[:5].tolist()}"
            )
        return found


def _unless(mask: str) -> Missing:
    return Missing(lambda arrays: ~arrays[mask])


def _also_without(mask: str, rows: Rows) -> Missing:
    """NaN without the mask, and perhaps in some other rows."""
    return Missing(lambda arrays: ~arrays[mask] | rows(arrays), always=False)


def _first_row(like: str = "times_s") -> Missing:
    return Missing(lambda arrays: np.arange(len(arrays[like])) == 0)


def _few_neighbours(measured: np.ndarray) -> np.ndarray:
    """Rows that are not measured, or have fewer than 3 measured ones from two before to two after."""
    near = np.array([measured[max(0, row - 2) : row + 3].sum() for row in range(len(measured))])
    return ~measured | (near < 3)


def _fewer_than_three_rates(arrays: Arrays) -> np.ndarray:
    """Candidates come in order, so what is missing is the end of a row; a valid window has at least one."""
    strength = arrays["bpm_candidate_strength_by_segment"]
    found = np.isfinite(strength).sum(axis=1)
    found = np.maximum(found, arrays["segment_mask"])
    return np.arange(strength.shape[1]) >= found[:, None]


NEVER = Missing(lambda arrays: np.zeros((), dtype=bool))


def _flat_previews(arrays: Arrays) -> np.ndarray:
    rows = np.searchsorted(arrays["frame_indices"], arrays["preview_frame_indices"])
    return ~arrays["depth_valid_mask"][rows]


def _whole_mesh(arrays: Arrays) -> np.ndarray:
    """A face has all its points or none."""
    return np.asarray(np.isnan(arrays["face_landmarks"]).all(axis=(1, 2)))


def _alone_in_time(arrays: Arrays) -> np.ndarray:
    """Frames without another one at least 2 s away."""
    times = arrays["times_s"]
    return ~(np.abs(times[:, None] - times[None, :]) >= 2.0).any(axis=1)


def _quality_columns(arrays: Arrays) -> np.ndarray:
    """Of a frame: what its face, its subject, its colours, its neighbours in time or its depth would tell."""
    names = arrays["frame_feature_names"].tolist()
    column = {name: arrays["frame_features"][:, names.index(name)] for name in names}
    rows = np.zeros(arrays["frame_features"].shape, dtype=bool)
    for name in ("face_sharpness_log", "face_luma_mean"):
        rows[:, names.index(name)] = column["face_count"] == 0
    no_subject = (column["face_count"] == 0) & (column["max_person_area_frac"] == 0)
    rows[:, names.index("subject_offset")] = no_subject
    # Hue counts where the mean of S·V is a hundredth; here stands only the product of the means.
    colourless = column["saturation_mean"] * column["luma_mean"] < 0.02
    rows[:, names.index("hue_entropy")] = colourless & np.isnan(column["hue_entropy"])
    # These rest on the dense signals and on the depth artifact, which are not at hand here.
    for name in ("flicker_std_1s", "depth_complexity_score", "foreground_background_separation_proxy"):
        rows[:, names.index(name)] = np.isnan(column[name])
    # Four pixels are the least a wavelet fits on, and a film has one size.
    rows[:, names.index("noise_sigma")] = np.isnan(column["noise_sigma"]).all()
    return rows


def _values_in_shot(arrays: Arrays) -> np.ndarray:
    """Finite values of every shot and measure, int `[S, G]`."""
    shots = range(len(arrays["shot_frame_count"]))
    finite = np.isfinite(arrays["frame_features"])
    return np.stack([finite[arrays["shot_ids"] == shot].sum(axis=0) for shot in shots])


_NO_SHOT_VALUE = Missing(lambda arrays: _values_in_shot(arrays) == 0)
_DEPTH, _PAIR, _WINDOW = _unless("depth_valid_mask"), _unless("pair_valid_mask"), _unless("segment_mask")
# A masked window may have been measured and found wanting.
_OUTSIDE = Missing(lambda arrays: ~arrays["segment_mask"], always=False)
# Where one pixel in twenty is displaced by half a pixel of 320, more than one in a hundred moves.
_NO_DIRECTION = _also_without(
    "pair_valid_mask", lambda arrays: arrays["flow_mag_p95_per_sec_norm"] * arrays["dt_seconds"] < 0.5 / 320
)
_NO_CAMERA = Missing(lambda arrays: ~arrays["pair_valid_mask"] | (arrays["bg_ratio"] < 0.25))
_NO_SHAKE = Missing(
    lambda arrays: _few_neighbours(arrays["pair_reliable_mask"] & np.isfinite(arrays["cam_tx_per_sec_norm"]))
)

MISSING: dict[str, dict[str, Missing]] = {
    "segmenter": {},
    "core_clip": {"consecutive_cosine_prev": _first_row()},
    "core_depth_midas": {
        **dict.fromkeys(("depth_mean", "depth_std", "depth_p05", "depth_p95", "depth_range_robust"), _DEPTH),
        **dict.fromkeys(("depth_complexity_score", "foreground_area_frac", "near_bottom_bias"), _DEPTH),
        "depth_maps_lowres": _DEPTH,
        # A map of little variance has no two classes either.
        "foreground_background_separation_proxy": _also_without(
            "depth_valid_mask", lambda arrays: arrays["depth_maps_lowres"].astype(np.float64).var(axis=(1, 2)) < 1e-6
        ),
        "preview_depth_maps_norm": Missing(_flat_previews),
    },
    "core_optical_flow": {
        "dt_seconds": _first_row(),
        **dict.fromkeys(
            (
                "flow_consistency",
                "motion_norm_per_sec_mean",
                "flow_mag_std_per_sec_norm",
                "flow_mag_p95_per_sec_norm",
                "flow_dx_mean_per_sec_norm",
                "flow_dy_mean_per_sec_norm",
                "flow_div_abs_mean",
                "bg_ratio",
            ),
            _PAIR,
        ),
        **dict.fromkeys(("flow_dir_sin_mean", "flow_dir_cos_mean", "flow_dir_dispersion"), _NO_DIRECTION),
        **dict.fromkeys(
            (
                "cam_affine_scale",
                "cam_affine_rotation",
                "cam_zoom_rate_per_sec",
                "cam_rotation_per_sec",
                "cam_tx_per_sec_norm",
                "cam_ty_per_sec_norm",
            ),
            _NO_CAMERA,
        ),
        "cam_shake_std_norm": _NO_SHAKE,
    },
    "core_object_detections": {},
    "core_face_landmarks": {"face_landmarks": Missing(_whole_mesh)},
    "cut_detection": {
        "cut_score": _first_row("cut_score"),
        "ssim_drop": _unless("ssim_valid_mask"),
        "flow_mag": _unless("flow_valid_mask"),
        "deep_cosine_dist": _unless("deep_valid_mask"),
    },
    "scene_classification": {"scene_change_score": _first_row("scene_change_score")},
    "shot_quality": {
        "frame_features": Missing(_quality_columns),
        **dict.fromkeys(("shot_features_mean", "shot_features_min", "shot_features_max"), _NO_SHOT_VALUE),
        "shot_features_std": Missing(lambda arrays: _values_in_shot(arrays) < 2),
    },
    "story_structure": {
        "story_energy_curve": _unless("energy_valid_mask"),
        "embedding_change_rate_per_sec": _first_row(),
        "story_energy_curve_downsampled_128": NEVER,
    },
    "uniqueness": {"max_sim_to_other": Missing(_alone_in_time), "cos_dist_next": NEVER},
    "optical_flow": {},
    "video_pacing": {
        "semantic_change_rate_per_sec": _first_row(),
        "color_change_rate_per_sec": _first_row(),
        "cut_density_8": NEVER,
    },
    "loudness_extractor": {
        "segment_rms_dbfs": _WINDOW,
        "segment_peak_dbfs": _WINDOW,
        "segment_lufs": _also_without("segment_mask", lambda arrays: arrays["segment_rms_dbfs"] < -60),
    },
    "clap_extractor": {
        "embedding_sequence": _WINDOW,
        "embedding": _unless("embedding_present"),
        "segment_rms_dbfs": _OUTSIDE,
    },
    "tempo_extractor": {
        "bpm_by_segment": _WINDOW,
        "pulse_clarity_by_segment": _OUTSIDE,
        "bpm_candidates_by_segment": Missing(_fewer_than_three_rates),
        "bpm_candidate_strength_by_segment": Missing(_fewer_than_three_rates),
    },
    "text_processor": {},
    "feature_vector": {},
}
"""Component → array → where it is NaN in an `ok` artifact. `feature_values` has reasons instead, feature by feature."""


def undescribed(schema: ArtifactSchema, arrays: Arrays) -> set[str]:
    """Arrays of an artifact that may hold NaN and that nothing above speaks of."""
    may = {
        name
        for name, field in schema.fields.items()
        if name in arrays and arrays[name].dtype.kind == "f" and not field.finite and name != "feature_values"
    }
    return may.difference(MISSING[schema.producer])
