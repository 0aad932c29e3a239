"""Technical and visual quality per frame, aggregated per shot.

Frames are measured as they are at analysis size. Block-grid measures of compression are left out on purpose: the
8-pixel grid does not survive scaling.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trendflow.components.base import ComponentInputs, ComponentSpec, FrameSamples, Upstream
from trendflow.components.visual import _shot_statistics as statistics
from trendflow.components.visual._aligned import require_norm_xy, require_same_frames, shots_of
from trendflow.components.visual._flicker import flicker
from trendflow.components.visual._frame_batches import StageTimer
from trendflow.components.visual._frame_quality import FACE_MEASURES, FRAME_MEASURES, QUALITY, measure
from trendflow.components.visual._own_rows import need_upstream
from trendflow.components.visual._prompt_classes import (
    ClassProbabilities,
    class_probabilities,
    normalised_entropy,
    top_classes,
)
from trendflow.components.visual._shot_statistics import ShotStatistics
from trendflow.components.visual._subjects import LargestBox
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.prompt_bank import PROMPTS
from trendflow.contracts.thresholds import THRESHOLDS

SPEC = ComponentSpec(
    name="shot_quality",
    producer_version="1.0.0",
    schema_version="shot_quality_npz_v4",
    hard=("segmenter", "cut_detection", "core_object_detections", "core_face_landmarks"),
    soft=("core_clip", "core_depth_midas"),
    reads=("frames", "dense"),
    reference={**THRESHOLDS.reference, **PROMPTS.reference},
)

# Measured here, and therefore scalars of the video; the rest has its home upstream and feeds the shot arrays only.
MEASURED = (*FRAME_MEASURES, *FACE_MEASURES, "flicker_std_1s", "subject_offset")
DEPTH_ROWS = ("depth_complexity_score", "foreground_background_separation_proxy")
UPSTREAM_ROWS = ("det_count", "max_person_area_frac", "face_count", "face_area_frac", *DEPTH_ROWS)
FRAME_FEATURES = (*MEASURED, *UPSTREAM_ROWS)
_MISSING = {
    **dict.fromkeys(FACE_MEASURES, "no frame shows a face that can be measured"),
    "hue_entropy": "no frame has colour",
    "flicker_std_1s": "no sample has enough source frames of its shot around it",
    "subject_offset": "no frame shows a face or a person",
}
"""Why a measure can be missing in all frames."""
PROMPT_SET = "shot_quality"
PROMPT_FEATURES = tuple(f"prob_mean__{name}" for name in PROMPTS.sets[PROMPT_SET].classes)
TOP_CLASSES = 3

_CHUNK = 16


def run(inputs: ComponentInputs) -> Artifact:
    """Frame features `[N, G]`, their statistics per shot `[S, G]` and duration-weighted scalars.

    Raises `artifact_validation_failed` when an upstream component measured other frames, gives boxes in another
    space, or when shots, samples and dense signals do not belong together.
    """
    samples, timer = inputs.need_samples(), StageTimer()
    cuts = need_upstream(inputs, "cut_detection")
    objects = need_upstream(inputs, "core_object_detections")
    faces = need_upstream(inputs, "core_face_landmarks")
    clip, depth = inputs.upstream.get("core_clip"), inputs.upstream.get("core_depth_midas")
    for upstream in (objects, faces, clip, depth):
        if upstream is not None:
            require_same_frames(upstream, samples)
    require_norm_xy(objects, "boxes_norm")
    require_norm_xy(faces, "face_boxes_norm")
    shot_ids = shots_of(cuts, samples)
    duration = cuts.arrays["shot_end_time_s"] - cuts.arrays["shot_start_time_s"]

    with timer.stage("upstream"):
        columns = _upstream_columns(inputs, objects, faces, depth)
        columns["flicker_std_1s"] = _flicker(inputs.need_dense(), cuts, samples, shot_ids)
    with timer.stage("frames"):
        columns |= _measured_columns(inputs, samples, LargestBox.of_faces(faces))
    with timer.stage("shots"):
        values = np.stack([columns[name] for name in FRAME_FEATURES], axis=1)
        shots = ShotStatistics.of(values, shot_ids, len(duration))
        quality = class_probabilities(clip, PROMPT_SET)
        features = _features(statistics.shot_mean(values, shot_ids, len(duration)), duration)
        prompt_arrays, prompt_features = _prompt_part(quality, shot_ids, duration)
    arrays = {
        "frame_indices": samples.frame_indices.astype(np.int32),
        "times_s": samples.times_s.astype(np.float64),
        "frame_feature_names": np.array(FRAME_FEATURES, dtype=np.str_),
        "frame_features": values.astype(np.float32),
        "frame_feature_present_ratio": np.isfinite(values).mean(axis=0).astype(np.float32),
        "shot_ids": shot_ids,
        "shot_features_mean": shots.mean,
        "shot_features_std": shots.std,
        "shot_features_min": shots.min,
        "shot_features_max": shots.max,
        "shot_frame_count": np.bincount(shot_ids, minlength=len(duration)).astype(np.int32),
        **prompt_arrays,
        **feature_arrays({**features, **prompt_features}),
    }
    return Artifact(
        arrays=arrays,
        warnings=("near_uniform_probs",) if quality is not None and quality.near_uniform else (),
        meta={"thresholds_version": THRESHOLDS.version, "absent_features": _absent(clip, depth, quality, features)},
        stage_timings_ms=timer.timings_ms(),
    )


def _measured_columns(inputs: ComponentInputs, samples: FrameSamples, faces: LargestBox) -> dict[str, np.ndarray]:
    """The measures of `_frame_quality` for every sample; each frame is read once."""
    names = (*FRAME_MEASURES, *FACE_MEASURES)
    rows = np.empty((len(samples), len(names)))
    for start in range(0, len(samples), _CHUNK):
        stop = min(len(samples), start + _CHUNK)
        for i, frame in enumerate(samples.read(start, stop), start=start):
            rows[i] = measure(frame, faces.pixels(i, frame.shape[1], frame.shape[0]))
        inputs.progress(stop, len(samples))
    return dict(zip(names, rows.T, strict=True))


def _upstream_columns(
    inputs: ComponentInputs, objects: Upstream, faces: Upstream, depth: Upstream | None
) -> dict[str, np.ndarray]:
    face, person = LargestBox.of_faces(faces), LargestBox.of_people(objects)
    size = (inputs.video.analysis_width, inputs.video.analysis_height)
    face_offset = face.center_offset(*size)
    unmeasured = np.full(len(face_offset), np.nan)
    return {
        "det_count": objects.arrays["det_count"].astype(np.float64),
        "max_person_area_frac": objects.arrays["max_person_area_frac"].astype(np.float64),
        "face_count": faces.arrays["face_count"].astype(np.float64),
        "face_area_frac": face.area,
        "subject_offset": np.where(np.isnan(face_offset), person.center_offset(*size), face_offset),
        **{name: unmeasured if depth is None else depth.arrays[name].astype(np.float64) for name in DEPTH_ROWS},
    }


def _flicker(
    dense: Mapping[str, np.ndarray], cuts: Upstream, samples: FrameSamples, shot_ids: np.ndarray
) -> np.ndarray:
    time_s = dense["pts_sec"]
    starts = cuts.arrays["shot_start_source_frame"]
    if len(starts) and cuts.arrays["shot_end_source_frame"][-1] != len(time_s):
        raise TrendFlowError("artifact_validation_failed", "The shots do not cover the dense signals.")
    return flicker(
        time_s,
        dense["luma_mean"].astype(np.float64),
        ~dense["corrupt_mask"].astype(bool),
        starts,
        samples.times_s,
        shot_ids,
        mean_s=QUALITY.flicker_mean_s,
        reach_s=QUALITY.flicker_reach_s,
    )


def _features(shot_means: np.ndarray, duration: np.ndarray) -> dict[str, float]:
    """Scalars of the video from the shot means `[S, G]` and the shot durations in seconds."""
    shot = dict(zip(FRAME_FEATURES, shot_means.T, strict=True))
    features: dict[str, float] = {}
    for name in MEASURED:
        features[f"{name}_mean"] = statistics.weighted_mean(shot[name], duration)
        features[f"{name}_std"] = statistics.weighted_std(shot[name], duration)
    luma, sharpness = shot["luma_mean"], shot["sharpness_tenengrad_log"]
    clipped = shot["overexposure_ratio"]
    return features | {
        "dark_shot_ratio": statistics.share_of_shots(luma, luma <= QUALITY.dark_luma),
        "blurry_shot_ratio": statistics.share_of_shots(sharpness, sharpness <= QUALITY.blurry_tenengrad_log),
        "clipped_shot_ratio": statistics.share_of_shots(clipped, clipped >= QUALITY.clipped_overexposure),
    }


def _prompt_part(
    quality: ClassProbabilities | None, shot_ids: np.ndarray, duration: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Arrays and scalars of the quality prompts; without them no arrays and NaN."""
    if quality is None:
        return {}, dict.fromkeys(PROMPT_FEATURES, float("nan"))
    shots = statistics.shot_mean(quality.values, shot_ids, len(duration))
    empty = np.isnan(shots).any(axis=1)
    ids, probs = top_classes(np.where(empty[:, None], 0.0, shots), TOP_CLASSES)
    ids[empty], probs[empty] = -1, np.nan
    entropy = np.where(empty, np.nan, normalised_entropy(np.where(empty[:, None], 1.0, shots)))
    arrays = {
        "shot_quality_probs_mean": shots.astype(np.float32),
        "shot_quality_topk_ids": ids,
        "shot_quality_topk_probs": probs,
        "shot_quality_conf_mean": np.where(empty, np.nan, probs[:, 0]).astype(np.float32),
        "shot_quality_entropy_mean": entropy.astype(np.float32),
    }
    scalars = {
        f"prob_mean__{name}": float("nan") if quality.near_uniform else statistics.weighted_mean(column, duration)
        for name, column in zip(quality.names, shots.T, strict=True)
    }
    return arrays, scalars


def _absent(
    clip: Upstream | None, depth: Upstream | None, quality: ClassProbabilities | None, features: Mapping[str, float]
) -> dict[str, str]:
    """Why values are missing although the component ran."""
    absent = {}
    for name in MEASURED:
        nowhere = _MISSING.get(name, "it cannot be measured in any frame")
        if np.isnan(features[f"{name}_mean"]):
            absent[f"{name}_mean"] = nowhere
        if np.isnan(features[f"{name}_std"]):
            absent[f"{name}_std"] = nowhere if f"{name}_mean" in absent else "fewer than two shots have a value"
    if depth is None:
        absent |= dict.fromkeys(DEPTH_ROWS, "core_depth_midas is not available")
    if quality is None:
        reason = "core_clip is not available" if clip is None else "core_clip has no prompt probabilities"
        absent |= dict.fromkeys(("prob_mean__", "shot_quality_"), reason)
    elif quality.near_uniform:
        absent["prob_mean__"] = "the quality prompts do not tell the frames apart"
    return absent
