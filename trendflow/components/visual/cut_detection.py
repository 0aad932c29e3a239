"""cut_detection: shot boundaries and transitions at source frame rate.

The dense signals of every source frame decide; sampled frames, motion, embeddings and an optional learned model
confirm or refute. What a missing source would have told is NaN and named in `absent_features`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trendflow.components.base import ComponentInputs, ComponentSpec, FrameSamples, Upstream
from trendflow.components.visual import _picture_tests as picture_tests
from trendflow.components.visual import _shot_boundary as shot_boundary
from trendflow.components.visual import _upstream_evidence as evidence
from trendflow.components.visual._cut_constants import CUTS
from trendflow.components.visual._cut_events import (
    Event,
    EventType,
    excluded_pairs,
    find_fades,
    find_flashes,
    hard_cut_candidates,
    hard_cut_events,
)
from trendflow.components.visual._cut_score import DenseSignals, dense_signals
from trendflow.components.visual._sampled_pictures import Pictures, compare_samples
from trendflow.components.visual._shots import Shots, duration_features, partition
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.thresholds import THRESHOLDS

SPEC = ComponentSpec(
    name="cut_detection",
    producer_version="1.1.0",
    schema_version="cut_detection_npz_v2",
    hard=("segmenter",),
    soft=("core_optical_flow", "core_clip", "core_object_detections", "core_face_landmarks"),
    reads=("frames", "dense"),
    optional_roles=("shot_boundary",),
    reference=THRESHOLDS.reference,
)

_ROLE = "shot_boundary"
_EVENT_NAMES = np.array([kind.name.lower() for kind in EventType])
_CONTRIBUTIONS = 5  # hist, mad, ssim, deep, learned


@dataclass(frozen=True)
class _Evidence:
    """Everything that is known besides the dense signals; pairs are of successive samples."""

    samples: FrameSamples
    sampled: Pictures
    thumbs: Pictures | None  # of every source frame
    probability: np.ndarray | None  # float32 [F]
    ssim_drop: np.ndarray  # float32 [N-1]
    motion: np.ndarray  # float32 [N-1]
    deep: np.ndarray  # float32 [N-1]
    flow: Upstream | None
    clip: Upstream | None
    boxes: list[evidence.LargestBoxes]

    @property
    def pictures(self) -> Pictures:
        return self.sampled if self.thumbs is None else self.thumbs

    @property
    def confirms_dissolves(self) -> bool:
        return self.probability is not None or picture_tests.can_confirm_dissolves(self.pictures)

    @property
    def sees_camera_moves(self) -> bool:
        return evidence.shows_motion(self.flow)

    @property
    def judges_jump_cuts(self) -> bool:
        return self.clip is not None and bool(self.boxes)


def run(inputs: ComponentInputs) -> Artifact:
    """Find events and shots.

    Raises `dependency_missing` without dense signals or, with a learned model, without thumbnails;
    `artifact_validation_failed` when the union's times are not those of its source frames.
    """
    started = time.perf_counter()
    dense = dense_signals(inputs.need_dense())
    samples = inputs.need_samples()
    union_frames = _union_source_frames(inputs, dense)
    found = _gather(inputs, dense, samples)
    gathered = time.perf_counter()

    events = _find_events(dense, found)
    shots = partition(dense, events, inputs.video.duration_sec)
    jumps = _jump_cuts(found, events)
    features = _features(events, shots, jumps, found, inputs.video.duration_sec)
    measurable = len(dense) >= 2
    if not measurable:
        features = dict.fromkeys(features, float("nan"))
    arrays = (
        _sample_arrays(samples, found)
        | {"cut_score": dense.score.astype(np.float32)}
        | _event_arrays(events, jumps, _contributions(dense, events, found))
        | {
            "jump_channel_present": np.array(found.judges_jump_cuts),
            "dissolve_channel_present": np.array(found.confirms_dissolves),
        }
        | _shot_arrays(shots, union_frames)
        | feature_arrays(features)
    )
    handle = inputs.models.get(_ROLE)
    return Artifact(
        arrays=arrays,
        status="ok" if measurable else "empty",
        empty_reason=None if measurable else "too_few_frames",
        models_used=() if handle is None else (handle.used,),
        device_used=None if handle is None else handle.device_used,
        meta={
            "thresholds_version": THRESHOLDS.version,
            "total_frames": len(union_frames),
            "processed_frames": len(samples),
            "absent_features": _absent(found, jumps, features) if measurable else {},
        }
        | ({} if handle is None else {"batching": inputs.runner.record()}),
        stage_timings_ms={
            "evidence": (gathered - started) * 1e3,
            "events": (time.perf_counter() - gathered) * 1e3,
        },
    )


def _union_source_frames(inputs: ComponentInputs, dense: DenseSignals) -> np.ndarray:
    """Source frame of every union frame, after checking that both artifacts share one time axis."""
    segmenter = inputs.upstream.get("segmenter")
    if segmenter is None:
        raise TrendFlowError("dependency_missing", "The segmenter artifact is missing.", kind="artifact")
    frames = segmenter.arrays["union_frame_indices_source"].astype(np.int64)
    times_s = segmenter.arrays["union_timestamps_sec"]
    if len(frames) and not 0 <= frames.min() <= frames.max() < len(dense):
        raise TrendFlowError("artifact_validation_failed", "The union holds frames the dense signals do not have.")
    if not np.array_equal(dense.t[frames], times_s):
        raise TrendFlowError("artifact_validation_failed", "The union's times are not on the dense time axis.")
    if inputs.video.duration_sec <= dense.t[-1]:
        raise TrendFlowError("artifact_validation_failed", "The video ends before its last frame.")
    return frames


def _gather(inputs: ComponentInputs, dense: DenseSignals, samples: FrameSamples) -> _Evidence:
    arrays = inputs.need_dense()
    rgb = arrays.get("thumb_rgb")
    thumbs = None if rgb is None else Pictures(dense.t, rgb)
    probability = None
    if _ROLE in inputs.models:
        if rgb is None:
            raise TrendFlowError(
                "dependency_missing",
                "A shot-boundary model needs the dense thumbnails.",
                kind="artifact",
                key="thumb_rgb",
            )
        probability = shot_boundary.transition_probability(inputs.models[_ROLE], rgb, inputs.runner)
    drops, sampled = compare_samples(samples, inputs.progress)
    flow, clip = inputs.upstream.get("core_optical_flow"), inputs.upstream.get("core_clip")
    return _Evidence(
        samples=samples,
        sampled=sampled,
        thumbs=thumbs,
        probability=probability,
        ssim_drop=drops,
        motion=evidence.motion_between(flow, samples.times_s),
        deep=evidence.embedding_distance(clip, samples.times_s[:-1], samples.times_s[1:]),
        flow=flow,
        clip=clip,
        boxes=evidence.subject_boxes(inputs.upstream),
    )


def _find_events(dense: DenseSignals, found: _Evidence) -> list[Event]:
    """All events in time order."""
    flashes = find_flashes(dense)
    cuts = picture_tests.without_exposure_steps(dense, hard_cut_candidates(dense, flashes), found.pictures)
    if found.probability is not None:
        cuts = shot_boundary.adjusted_cuts(dense, cuts, excluded_pairs(dense, flashes), found.probability)
    fades = find_fades(dense, cuts)
    dissolves: list[Event] = []
    if found.confirms_dissolves:
        dissolves = picture_tests.dissolves_by_blending(dense, found.pictures, cuts)
    if found.probability is not None and found.thumbs is not None:
        learned = shot_boundary.learned_dissolves(dense, found.probability, found.thumbs.rgb, cuts)
        dissolves = picture_tests.without_overlap([*dissolves, *learned])
    fades, dissolves = picture_tests.fades_or_dissolves(fades, dissolves, found.pictures)
    moves = evidence.camera_moves(found.flow, dense)
    events = [*hard_cut_events(dense, cuts), *fades, *dissolves, *moves, *flashes]
    return sorted(events, key=lambda event: (event.time_s, event.type))


def _jump_cuts(found: _Evidence, events: Sequence[Event]) -> evidence.JumpCuts:
    times_s = np.array([event.time_s for event in events if event.type is EventType.HARD_CUT])
    if found.clip is None or not found.boxes:
        none = np.zeros(len(times_s), dtype=bool)
        return evidence.JumpCuts(none, none)
    return evidence.judge_jump_cuts(found.clip, found.boxes, times_s)


def _contributions(dense: DenseSignals, events: Sequence[Event], found: _Evidence) -> np.ndarray:
    """bool `[E, 5]`: which signals exceed their threshold somewhere in the event."""
    mask = np.zeros((len(events), _CONTRIBUTIONS), dtype=bool)
    starts, ends = found.samples.times_s[:-1], found.samples.times_s[1:]
    for i, event in enumerate(events):
        rows = slice(max(event.start_frame, 1), event.end_frame + 1)
        pairs = (starts < event.end_s + 1e-9) & (ends > event.start_s - 1e-9)
        mask[i] = (
            np.any(dense.hist[rows] >= CUTS.contrib_hist),
            np.any(dense.mad[rows] >= CUTS.contrib_mad),
            np.any(found.ssim_drop[pairs] >= CUTS.contrib_ssim_drop),
            np.any(found.deep[pairs] >= CUTS.contrib_deep_distance),
            found.probability is not None
            and np.any(found.probability[max(event.start_frame - 1, 0) : event.end_frame + 1] >= CUTS.learned_add),
        )
    return mask


def _features(
    events: Sequence[Event], shots: Shots, jumps: evidence.JumpCuts, found: _Evidence, duration_s: float
) -> dict[str, float]:
    counts = {kind: sum(event.type is kind for event in events) for kind in EventType}
    hard = [event for event in events if event.type is EventType.HARD_CUT]
    fades = counts[EventType.FADE_IN] + counts[EventType.FADE_OUT]
    per_min = 60.0 / duration_s
    nan = float("nan")
    return {
        "cuts_per_minute": len(hard) * per_min,
        "hard_cut_count": len(hard),
        "soft_transition_count": fades + counts[EventType.DISSOLVE],
        "fade_in_count": counts[EventType.FADE_IN],
        "fade_out_count": counts[EventType.FADE_OUT],
        "dissolve_count": counts[EventType.DISSOLVE] if found.confirms_dissolves else nan,
        "flash_count": counts[EventType.FLASH],
        "whip_pan_per_min": counts[EventType.WHIP_PAN] * per_min if found.sees_camera_moves else nan,
        "zoom_per_min": counts[EventType.ZOOM] * per_min if found.sees_camera_moves else nan,
        "jump_cut_ratio": float(jumps.is_jump.sum() / jumps.judged.sum()) if jumps.judged.any() else nan,
        **duration_features(shots.durations_s),
        "first_cut_time_s": hard[0].time_s if hard else nan,
        "cut_strength_mean": float(np.mean([event.strength for event in hard])) if hard else nan,
    }


def _sample_arrays(samples: FrameSamples, found: _Evidence) -> dict[str, np.ndarray]:
    return {
        "frame_indices": samples.frame_indices.astype(np.int32),
        "times_s": samples.times_s.astype(np.float64),
        "pair_dt_s": np.diff(samples.times_s).astype(np.float32),
        "ssim_drop": found.ssim_drop,
        "flow_mag": found.motion,
        "deep_cosine_dist": found.deep,
        "ssim_valid_mask": np.isfinite(found.ssim_drop),
        "flow_valid_mask": np.isfinite(found.motion),
        "deep_valid_mask": np.isfinite(found.deep),
    }


def _event_arrays(
    events: Sequence[Event], jumps: evidence.JumpCuts, contributions: np.ndarray
) -> dict[str, np.ndarray]:
    kinds = np.array([event.type for event in events], dtype=np.int16)
    is_jump = np.zeros(len(events), dtype=bool)
    is_jump[kinds == EventType.HARD_CUT] = jumps.is_jump
    return {
        "event_type_id": kinds,
        "event_type_names": _EVENT_NAMES,
        "event_time_s": np.array([event.time_s for event in events], dtype=np.float64),
        "event_start_time_s": np.array([event.start_s for event in events], dtype=np.float64),
        "event_end_time_s": np.array([event.end_s for event in events], dtype=np.float64),
        "event_source_frame": np.array([event.frame for event in events], dtype=np.int64),
        "event_strength": np.array([event.strength for event in events], dtype=np.float32),
        "event_contrib_mask": contributions,
        "event_is_jump_cut": is_jump,
    }


def _shot_arrays(shots: Shots, union_frames: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "shot_start_time_s": shots.start_s,
        "shot_end_time_s": shots.end_s,
        "shot_start_source_frame": shots.start_frame,
        "shot_end_source_frame": shots.end_frame,
        "union_shot_ids": shots.ids_of(union_frames),
    }


def _absent(found: _Evidence, jumps: evidence.JumpCuts, features: Mapping[str, float]) -> dict[str, str]:
    """Why a value is NaN although the component ran."""
    reasons = dict.fromkeys(("jump_cut_ratio", "first_cut_time_s", "cut_strength_mean"), "there is no hard cut")
    reasons |= dict.fromkeys(("shot_duration_std_s", "shot_duration_cv"), "the video is one shot")
    absent = {name: reason for name, reason in reasons.items() if np.isnan(features[name])}
    if not found.sees_camera_moves:
        reason = "core_optical_flow " + ("is not available" if found.flow is None else "has no reliable pair")
        absent |= dict.fromkeys(("whip_pan_per_min", "zoom_per_min", "flow_mag"), reason)
    if found.clip is None:
        absent |= dict.fromkeys(("jump_cut_ratio", "deep_cosine_dist"), "core_clip is not available")
    elif not found.boxes:
        absent["jump_cut_ratio"] = "no component gives person or face boxes"
    elif len(jumps.judged) and not jumps.judged.any():
        absent["jump_cut_ratio"] = f"no hard cut has embeddings within {CUTS.evidence_reach_s} s around it"
    if not found.confirms_dissolves:
        absent["dissolve_count"] = (
            f"no shot_boundary model, no thumbnails, and samples more than {CUTS.dissolve_sample_gap_s} s apart"
        )
    return absent
