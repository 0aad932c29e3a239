"""A synthetic run in the shape of the schemas. Its numbers are invented and mean nothing; its manifest is valid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trendflow.contracts.artifact import ModelUsed, feature_arrays, row_splits
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.keys import model_signature, models_used_rows
from trendflow.contracts.manifest import (
    component_row_from_meta,
    new_manifest,
    run_status,
    skip_component,
    update_run,
    upsert_row,
)
from trendflow.presentation.run_view import ComponentView, RunView
from trendflow.presentation.thumbnails import Thumbnail, make_thumbnails
from trendflow_tests.presentation import synthetic_curves

Arrays = dict[str, np.ndarray]

IDENTITY = RunIdentity("upload", "synthetic_clip", "run_1", "c" * 64, "sampling_v1", "0.1.0")
CREATED, FINISHED = "2026-03-01T10:00:00.000Z", "2026-03-01T10:00:42.500Z"
KINDS = {
    "segmenter": "segmenter",
    "core_clip": "core",
    "core_optical_flow": "core",
    "core_object_detections": "core",
    "core_face_landmarks": "core",
    "cut_detection": "module",
    "optical_flow": "module",
    "shot_quality": "module",
    "story_structure": "module",
    "uniqueness": "module",
    "video_pacing": "module",
    "loudness_extractor": "audio",
    "clap_extractor": "audio",
    "tempo_extractor": "audio",
    "text_processor": "text",
}
SCHEMAS = {
    "segmenter": "segmenter_npz_v1",
    "core_clip": "core_clip_npz_v3",
    "core_optical_flow": "core_optical_flow_npz_v4",
    "core_object_detections": "core_object_detections_npz_v3",
    "core_face_landmarks": "core_face_landmarks_npz_v3",
    "cut_detection": "cut_detection_npz_v2",
    "optical_flow": "optical_flow_npz_v4",
    "shot_quality": "shot_quality_npz_v4",
    "story_structure": "story_structure_npz_v4",
    "uniqueness": "uniqueness_npz_v5",
    "video_pacing": "video_pacing_npz_v4",
    "loudness_extractor": "loudness_extractor_npz_v3",
    "clap_extractor": "clap_extractor_npz_v2",
    "tempo_extractor": "tempo_extractor_npz_v2",
    "text_processor": "text_npz_v2",
}
ENTRIES = {
    "core_clip": ("image_encoder", "efficientnet_lite0_224"),
    "core_object_detections": ("object_detector", "nanodet_m_416"),
    "core_face_landmarks": ("face_detector", "centerface_640"),
}
CLASSES = ("person", "dog", "car", "sports ball", "potted plant", "traffic light", "bench", "bird")


TEXT_FEATURES = {
    "tp_lex_title_len_words": 7,
    "tp_lex_title_len_chars": 41,
    "tp_lex_title_has_question": 1,
    "tp_lex_title_has_exclamation": 0,
    "tp_tags_hashtag_unique_count": 2,
    "tp_lex_transcript_len_words": float("nan"),
    "tp_cos_title_desc": 0.62,
}


class SyntheticFrames:
    """Coloured ramps in place of decoded frames; frame k differs from every other."""

    def __init__(self, count: int, height: int = 180, width: int = 320) -> None:
        self.count, self.height, self.width = count, height, width

    def read(self, union_indices: np.ndarray) -> np.ndarray:
        ramp = np.linspace(0, 255, self.width, dtype=np.uint8)
        frames = np.zeros((len(union_indices), self.height, self.width, 3), np.uint8)
        for row, index in enumerate(union_indices.tolist()):
            if not 0 <= index < self.count:
                raise IndexError(index)
            frames[row] = np.stack([np.roll(ramp, 7 * index), ramp, np.full_like(ramp, 255 * index // self.count)], -1)
        return frames


def arrays_of(duration: float, cuts: Sequence[float], fps: float = 24.0, seed: int = 0) -> dict[str, Arrays]:
    """Arrays of every component, and `dense_signals`, for a video with hard cuts at `cuts` seconds."""
    rng = np.random.default_rng(seed)
    pts = np.arange(round(duration * fps)) / fps
    union = np.linspace(0, pts[-1], min(len(pts), 800))
    indices = np.arange(0, len(union), 2, dtype=np.int32)
    times = union[indices]
    centers = times[:: max(1, len(times) // 200)]
    dense = _dense(pts, cuts, rng)
    return {
        "dense_signals": dense,
        "segmenter": {
            "union_timestamps_sec": union,
            **feature_arrays(
                {
                    "duration_sec": duration, "source_fps": fps, "analysis_fps": fps, "analysis_width": 568,
                    "analysis_height": 320, "source_width": 1280, "source_height": 720, "is_vfr": 0,
                    "audio_present": 1, "audio_channels": 2, "av_drift_sec": float("nan"),
                }
            ),
        },
        "core_clip": {
            "frame_indices": indices,
            "times_s": times,
            "consecutive_cosine_prev": _cosines(times, cuts, rng),
            **feature_arrays({"pair_dt_median_s": float(np.median(np.diff(times))), "embedding_dispersion": 0.2}),
        },
        "core_optical_flow": synthetic_curves.flow(times, cuts, rng),
        "optical_flow": feature_arrays(
            {"motion_curve_median": 0.012, "static_ratio": 0.25, "high_motion_ratio": 0.03}
        ),
        "shot_quality": synthetic_curves.quality(times, cuts, rng),
        "story_structure": synthetic_curves.story(times, duration),
        "uniqueness": {
            "times_s": times,
            "max_sim_to_other": (0.9 + 0.08 * np.sin(times)).astype(np.float32),
            **feature_arrays({"repetition_ratio": 0.31, "near_duplicate_ratio": 0.04}),
        },
        "video_pacing": synthetic_curves.pace(times, duration, cuts, rng),
        "clap_extractor": synthetic_curves.sound(duration),
        "text_processor": feature_arrays(TEXT_FEATURES),
        "core_object_detections": _detections(indices, times, rng),
        "core_face_landmarks": _faces(indices, times, duration, rng),
        "cut_detection": _cut_arrays(duration, cuts, dense),
        "loudness_extractor": {
            "segment_center_sec": centers,
            "segment_mask": np.ones(len(centers), bool),
            "segment_lufs": (-22 + 5 * np.sin(centers / 3) + rng.normal(0, 1, len(centers))).astype(np.float32),
            **feature_arrays({"lufs_integrated": -20.4, "true_peak_dbtp": -1.25, "loudness_range_lu": 6.1}),
        },
        "tempo_extractor": _tempo(duration, rng),
    }  # fmt: skip


def _dense(pts: np.ndarray, cuts: Sequence[float], rng: np.random.Generator) -> Arrays:
    motion = np.abs(rng.normal(0.012, 0.006, len(pts))) * (1.2 + np.sin(pts / 4))
    hist = np.abs(rng.normal(0.02, 0.01, len(pts)))
    for cut in cuts:
        at = int(np.searchsorted(pts, cut - 1e-9))
        motion[at], hist[at] = 0.22 + 0.05 * rng.random(), 0.6
    motion[0] = hist[0] = np.nan
    luma = np.clip(0.45 + 0.2 * np.sin(pts / 7) + rng.normal(0, 0.01, len(pts)), 0, 1)
    return {
        "pts_sec": pts,
        "lowres_mad": motion.astype(np.float32),
        "luma_mean": luma.astype(np.float32),
        "hist_l1": hist.astype(np.float32),
        "corrupt_mask": np.zeros(len(pts), bool),
    }


def _cosines(times: np.ndarray, cuts: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    cosine = 1 - np.abs(rng.normal(0, 0.02, len(times)))
    for cut in cuts:
        cosine[min(len(times) - 1, int(np.searchsorted(times, cut)))] = 0.55
    cosine[0] = np.nan
    return cosine.astype(np.float32)


def _detections(indices: np.ndarray, times: np.ndarray, rng: np.random.Generator) -> Arrays:
    lengths = rng.integers(0, 4, len(times))
    total = int(lengths.sum())
    corner = rng.uniform(0, 0.6, (total, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.38, (total, 2))], axis=1)
    return {
        "frame_indices": indices,
        "times_s": times,
        "det_row_splits": row_splits(lengths.tolist()),
        "boxes_norm": boxes.astype(np.float32),
        "scores": rng.uniform(0.5, 1, total).astype(np.float32),
        "class_ids": np.minimum(rng.geometric(0.4, total) - 1, len(CLASSES) - 1).astype(np.int32),
        "class_names": np.array(CLASSES),
        **feature_arrays({"det_count_mean": float(lengths.mean()), "person_frame_ratio": 0.6}),
    }


def _faces(indices: np.ndarray, times: np.ndarray, duration: float, rng: np.random.Generator) -> Arrays:
    count = ((times > 0.2 * duration) & (times < 0.7 * duration)).astype(np.int32)
    count += (times > 0.5 * duration).astype(np.int32)
    corner = rng.uniform(0.2, 0.5, (int(count.sum()), 2))
    return {
        "frame_indices": indices,
        "times_s": times,
        "face_row_splits": row_splits(count.tolist()),
        "face_boxes_norm": np.concatenate([corner, corner + 0.2], axis=1).astype(np.float32),
        "face_count": count,
        **feature_arrays({"face_present_ratio": float((count > 0).mean()), "face_count_max": float(count.max())}),
    }


def _cut_arrays(duration: float, cuts: Sequence[float], dense: Arrays) -> Arrays:
    fade = duration > 4
    times = [0.6, *cuts] if fade else list(cuts)
    kinds = [1] * fade + [0] * len(cuts)
    starts, ends = [0.0, *cuts], [*cuts, duration]
    score = np.sqrt(dense["hist_l1"] * np.minimum(1, dense["lowres_mad"] / 0.25))
    lengths = np.array(ends) - starts
    return {
        "cut_score": score.astype(np.float32),
        "event_type_id": np.array(kinds, np.int16),
        "event_time_s": np.array(times),
        "event_start_time_s": np.array([0.2, *cuts] if fade else times),
        "event_end_time_s": np.array([1.0, *cuts] if fade else times),
        "event_strength": np.full(len(times), 0.7, np.float32),
        "event_is_jump_cut": np.zeros(len(times), bool),
        "shot_start_time_s": np.array(starts),
        "shot_end_time_s": np.array(ends),
        "shot_start_source_frame": np.searchsorted(dense["pts_sec"], starts).astype(np.int64),
        "shot_end_source_frame": np.searchsorted(dense["pts_sec"], ends).astype(np.int64),
        **feature_arrays(
            {
                "hard_cut_count": len(cuts),
                "cuts_per_minute": 60 * len(cuts) / duration,
                "shot_duration_median_s": float(np.median(lengths)),
                "shot_duration_std_s": float(lengths.std()) if len(cuts) else float("nan"),
                "dissolve_count": float("nan"),
            }
        ),
    }


def _tempo(duration: float, rng: np.random.Generator) -> Arrays:
    window = min(duration, 10.0)
    starts = np.arange(0, max(duration - window, 0) + 0.5, max(0.5, duration / 100))
    bpm = 118 + rng.normal(0, 0.5, len(starts))
    valid = rng.random(len(starts)) > 0.2
    valid[0] = True
    return {
        "segment_start_sec": starts,
        "segment_end_sec": starts + window,
        "segment_center_sec": starts + window / 2,
        "segment_mask": valid,
        "bpm_by_segment": np.where(valid, bpm, np.nan).astype(np.float32),
        "pulse_clarity_by_segment": np.where(valid, 0.6, 0.1).astype(np.float32),
        "tempo_warnings": np.array([], dtype=np.str_),
        **feature_arrays({"tempo_bpm": 118.2, "tempo_valid_ratio": float(valid.mean()), "tempo_agreement": 0.9}),
    }


def make_view(
    duration: float = 30.0,
    cuts: Sequence[float] = (5.0, 11.875, 20.0),
    *,
    empty: dict[str, tuple[str, Arrays]] | None = None,
    errors: dict[str, TrendFlowError] | None = None,
    skipped: dict[str, str] | None = None,
    warnings: Sequence[str] = (),
    thumbnails: Sequence[Thumbnail] | None = None,
    identity: RunIdentity = IDENTITY,
    meta: dict[str, Any] | None = None,
) -> RunView:
    """A finished run. `empty` maps component → (reason, arrays), `errors` component → error, `skipped` → cause."""
    arrays = arrays_of(duration, cuts)
    dense = arrays.pop("dense_signals")
    manifest = new_manifest(
        identity,
        CREATED,
        "starter",
        {"type": "local_path", "sha256": "a" * 64, "bytes": 5_481_200, "duration_sec": duration},
        resolved_models={
            role: {"entry": entry, "engine": "onnx", "precision": "fp32", "device": "cpu"}
            for role, entry in ENTRIES.values()
        },
    )
    components = {}
    for position, name in enumerate(KINDS):
        if name in (skipped or {}):
            manifest = skip_component(manifest, name, (skipped or {})[name])
            continue
        reason, values = (empty or {}).get(name, (None, arrays[name]))
        error = (errors or {}).get(name)
        if error is not None:
            values = {}
        row = _row(name, reason, error, 400.0 * (position + 1), list(warnings) if name == "segmenter" else [])
        manifest = upsert_row(manifest, row)
        components[name] = ComponentView(row, values, meta or {})
    manifest = update_run(manifest, finished_at=FINISHED, warnings=sorted(warnings))
    if thumbnails is None:
        times = arrays["segmenter"]["union_timestamps_sec"]
        chosen = np.unique(np.linspace(0, len(times) - 1, 16).astype(int))
        thumbnails = make_thumbnails(SyntheticFrames(len(times)), chosen, times[chosen])
    failed_decode = "segmenter" in (errors or {})
    return RunView(
        manifest=manifest,
        status=run_status(manifest, tuple(KINDS)),
        components=components,
        dense={} if failed_decode else dense,
        thumbnails=[] if failed_decode else thumbnails,
        units={"loudness_extractor": {"lufs_integrated": "LUFS"}},
    )


def _row(
    name: str, reason: str | None, error: TrendFlowError | None, duration_ms: float, warnings: list[str]
) -> dict[str, Any]:
    status = "error" if error else "empty" if reason else "ok"
    used: list[ModelUsed] = []
    if name in ENTRIES and not error:
        used = [ModelUsed(ENTRIES[name][1], "1.0.0", "d" * 64, "inprocess", "onnx", "fp32", "cpu")]
    cached = name == "core_clip" and status == "ok"
    meta = {
        "producer": name,
        "status": status,
        "empty_reason": reason,
        "error": error.message if error else None,
        "error_code": error.error_code if error else None,
        "producer_version": "1.0.0",
        "schema_version": SCHEMAS[name],
        "models_used": models_used_rows(used),
        "model_signature": model_signature(used),
        "idempotency_key": "1" * 64,
        "device_used": "cpu" if used else None,
        "cache_hit": cached,
        "reused_from": {"run_id": "run_0", "created_at": CREATED, "sha256": "e" * 64} if cached else None,
        "warnings": warnings,
    }
    artifact = {
        "path": f"{name}/{name}.npz",
        "type": "npz",
        "size": 48_213,
        "sha256": "b" * 64,
        "content_digest": "f" * 64,
        "schema_version": SCHEMAS[name],
        "retention_class": "derived",
    }
    return component_row_from_meta(
        meta,
        kind=KINDS[name],
        artifacts=[artifact],
        started_at=CREATED,
        finished_at=FINISHED,
        duration_ms=duration_ms,
    )
