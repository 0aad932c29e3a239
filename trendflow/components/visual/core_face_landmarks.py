"""Faces, 468-point meshes and face tracks per primary-group frame.

Both models count as used whenever the component ran: which of them had something to do depends on the content, the
signature of a result may not. With `person_gate` on, only frames near a detected person are searched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trendflow.components._entry import need_model
from trendflow.components.base import ComponentInputs, ComponentSpec, FrameSamples, Param, Upstream
from trendflow.components.visual import _summary
from trendflow.components.visual._boxes import areas, as_norm
from trendflow.components.visual._face_detector import FaceDetector, Faces
from trendflow.components.visual._face_mesh import POINTS, FaceMesher, eye_opening, mouth_opening
from trendflow.components.visual._face_tracks import assign_tracks, smooth_track
from trendflow.components.visual._frame_batches import StageTimer, over_frames
from trendflow.contracts.artifact import Artifact, feature_arrays, row_splits
from trendflow.contracts.errors import TrendFlowError

SPEC = ComponentSpec(
    name="core_face_landmarks",
    producer_version="1.0.0",
    schema_version="core_face_landmarks_npz_v3",
    hard=("segmenter", "core_object_detections"),
    reads=("frames",),
    roles=("face_detector", "face_landmarks"),
    params={
        "person_gate": Param("off", "'on' searches faces only within 2 s of a frame with a detected person."),
        "max_faces": Param(8, "Faces kept per frame, largest first."),
        "keep_raw_landmarks": Param(False, "Also write the meshes before smoothing."),
    },
)

PERSON_GATE_REACH_S = 2.0


def run(inputs: ComponentInputs) -> Artifact:
    """Ragged faces (`face_boxes_norm`, `face_scores`, `face_landmarks`, `face_track_ids`) with `face_row_splits`.

    `empty` with `no_faces_in_video`, or with `no_person_detections` when the gate is on and nobody was detected.
    Raises `artifact_validation_failed` (the person boxes belong to other frames or name no coordinate space),
    `config_invalid` (a parameter) and `model_spec_invalid` (not 468 points).
    """
    samples, gate_on, max_faces, keep_raw = inputs.need_samples(), *_params(inputs.params)
    person_present = _person_present(inputs.upstream["core_object_detections"], samples)
    searched = _near_person(samples.times_s, person_present) if gate_on else np.ones(len(samples), dtype=bool)
    timer = StageTimer()
    faces, meshes = _find_faces(inputs, samples, searched, max_faces, timer)

    width, height = inputs.video.analysis_width, inputs.video.analysis_height
    counts = np.array([len(found) for found in faces], dtype=np.int32)
    boxes = as_norm(np.concatenate([found.boxes for found in faces]), width, height)
    tracks = np.concatenate(assign_tracks([found.boxes for found in faces]))
    face_times = np.repeat(samples.times_s, counts)
    raw = np.concatenate(meshes) / (width, height, 1.0)
    with timer.stage("smoothing"):
        landmarks = _smooth(raw, face_times, tracks)
    arrays: dict[str, np.ndarray] = {
        "frame_indices": samples.frame_indices.astype(np.int32),
        "times_s": samples.times_s.astype(np.float64),
        "face_row_splits": row_splits(counts.tolist()),
        "face_boxes_norm": boxes,
        "face_scores": np.concatenate([found.scores for found in faces]),
        "face_landmarks": landmarks.astype(np.float32),
        "face_track_ids": tracks,
        "face_present": counts > 0,
        # Every face found is passed to the mesh; a face it does not recognise has NaN points.
        "face_mesh_ran": counts > 0,
        "person_present": person_present,
        "face_count": counts,
    }
    if keep_raw:
        arrays["face_landmarks_raw"] = raw.astype(np.float32)
    features = _features(samples.times_s, counts, boxes, landmarks * (width, height, 1.0))
    empty_reason = None
    if not counts.any():
        empty_reason = "no_person_detections" if gate_on and not person_present.any() else "no_faces_in_video"
    detector, mesher = need_model(inputs, "face_detector"), need_model(inputs, "face_landmarks")
    return Artifact(
        arrays={**arrays, **feature_arrays(features)},
        status="empty" if empty_reason else "ok",
        empty_reason=empty_reason,
        models_used=(detector.used, mesher.used),
        device_used=detector.device_used,
        meta={"coord_space": "norm_xy", "absent_features": {} if empty_reason else _absent(features)},
        stage_timings_ms=timer.timings_ms(),
    )


def _params(params: Mapping[str, Any]) -> tuple[bool, int, bool]:
    """Checked parameters: gate on, faces per frame, keep raw meshes."""
    values = {name: params.get(name, param.default) for name, param in SPEC.params.items()}
    gate, max_faces, keep_raw = values["person_gate"], values["max_faces"], values["keep_raw_landmarks"]
    if gate not in ("on", "off"):
        raise TrendFlowError("config_invalid", "The parameter person_gate must be the text 'on' or 'off'.")
    if isinstance(max_faces, bool) or not isinstance(max_faces, int) or max_faces < 1:
        raise TrendFlowError("config_invalid", "The parameter max_faces must be a positive whole number.")
    if not isinstance(keep_raw, bool):
        raise TrendFlowError("config_invalid", "The parameter keep_raw_landmarks must be true or false.")
    return gate == "on", max_faces, keep_raw


def _person_present(objects: Upstream, samples: FrameSamples) -> np.ndarray:
    """bool `[N]`: the object detector saw a person in the frame."""
    if not np.array_equal(objects.arrays["frame_indices"], samples.frame_indices):
        raise TrendFlowError(
            "artifact_validation_failed",
            "The person boxes belong to other frames than the faces.",
            upstream=objects.name,
        )
    space = objects.meta.get("coord_space")
    if not isinstance(space, Mapping) or space.get("boxes_norm") != "norm_xy":
        raise TrendFlowError(
            "artifact_validation_failed", "The person boxes do not declare their coord_space.", upstream=objects.name
        )
    return np.asarray(objects.arrays["person_count"] > 0)


def _near_person(times_s: np.ndarray, person_present: np.ndarray) -> np.ndarray:
    """bool `[N]`: a person was detected within ± 2 s."""
    lag = np.abs(times_s[:, None] - times_s[person_present][None, :])
    return (lag <= PERSON_GATE_REACH_S).any(axis=1)


def _find_faces(
    inputs: ComponentInputs, samples: FrameSamples, searched: np.ndarray, max_faces: int, timer: StageTimer
) -> tuple[list[Faces], list[np.ndarray]]:
    """Faces and meshes (analysis pixels) of every frame; frames that are not searched have none."""
    detector = FaceDetector(need_model(inputs, "face_detector"), timer, max_faces)
    mesher = FaceMesher(need_model(inputs, "face_landmarks"), timer)

    def work(frames: np.ndarray) -> list[tuple[Faces, np.ndarray]]:
        found = detector(frames)
        return list(zip(found, mesher(frames, found), strict=True))

    chosen = FrameSamples(samples.frame_indices[searched], samples.times_s[searched], samples.reader)
    batches = over_frames(inputs, chosen, work, detector.max_batch, timer)
    faces = [Faces.none() for _ in range(len(samples))]
    meshes = [np.zeros((0, POINTS, 3)) for _ in range(len(samples))]
    for i, (found, mesh) in zip(np.flatnonzero(searched), (pair for batch in batches for pair in batch), strict=True):
        faces[i], meshes[i] = found, mesh
    return faces, meshes


def _smooth(points: np.ndarray, times_s: np.ndarray, tracks: np.ndarray) -> np.ndarray:
    """Meshes `[Q, 468, 3]` smoothed track by track."""
    smoothed = points.copy()
    for track in np.unique(tracks):
        rows = tracks == track
        smoothed[rows] = smooth_track(times_s[rows], points[rows])
    return smoothed


def _features(times_s: np.ndarray, counts: np.ndarray, boxes: np.ndarray, points_px: np.ndarray) -> dict[str, float]:
    """Scalars; the primary face of a frame is its largest, which is its first row."""
    present = counts > 0
    primary = (np.cumsum(counts) - counts)[present]
    area = areas(boxes[primary].astype(np.float64))
    centre = (boxes[primary, :2].astype(np.float64) + boxes[primary, 2:]) / 2
    mouth = mouth_opening(points_px[primary])
    return {
        "face_present_ratio": _summary.mean(present),
        "face_count_mean": _summary.mean(counts),
        "face_count_max": _summary.maximum(counts),
        "primary_face_area_mean": _summary.mean(area),
        "primary_face_area_max": _summary.maximum(area),
        "primary_face_center_x_mean": _summary.mean(centre[:, 0]),
        "primary_face_center_y_mean": _summary.mean(centre[:, 1]),
        "first_face_time_s": float(times_s[present][0]) if present.any() else float("nan"),
        "longest_face_run_s": _longest_run_s(times_s, present),
        "mouth_open_mean": _summary.mean(mouth),
        "mouth_open_std": _summary.std(mouth),
        "eye_open_mean": _summary.mean(eye_opening(points_px[primary])),
    }


def _absent(features: Mapping[str, float]) -> dict[str, str]:
    """Why a value is NaN although there are faces."""
    reasons = {
        "mouth_open_mean": "the mesh recognises no face",
        "mouth_open_std": "the mesh recognises fewer than two faces",
        "eye_open_mean": "the mesh recognises no face",
    }
    return {name: reason for name, reason in reasons.items() if np.isnan(features[name])}


def _longest_run_s(times_s: np.ndarray, present: np.ndarray) -> float:
    """Longest time from the first to the last sample of an unbroken run with a face; NaN without a face."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2] - 1
    return _summary.maximum(times_s[ends] - times_s[starts])
