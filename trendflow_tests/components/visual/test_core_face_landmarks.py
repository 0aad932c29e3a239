"""Faces, meshes and tracks with the shipped models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from trendflow.components.base import Upstream
from trendflow.components.visual import core_face_landmarks
from trendflow.components.visual._boxes import iou_matrix
from trendflow.components.visual.core_object_detections import SPEC as OBJECTS
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow_tests.components.visual.clips import (
    Bench,
    Clip,
    as_upstream,
    clip_of,
    features,
    flat_clip,
)

# The clips are decoded once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("clips-of-people")


def objects_of(clip: Clip, persons: list[int] | None = None) -> Upstream:
    """Object detections reduced to what the faces read: `persons` per frame, by default one."""
    counts = [1] * len(clip) if persons is None else persons
    arrays = {
        "frame_indices": np.arange(len(clip), dtype=np.int32),
        "times_s": clip.times_s,
        "person_count": np.array(counts, dtype=np.int32),
    }
    return Upstream(OBJECTS.name, "ok", None, arrays, {"coord_space": {"boxes": "px", "boxes_norm": "norm_xy"}})


def run(bench: Bench, clip: Clip, upstream: Artifact | Upstream | None = None, **options: Any) -> Artifact:
    return bench.run(core_face_landmarks, clip, upstream=objects_of(clip) if upstream is None else upstream, **options)


def test_a_face_in_every_second(hello: Clip, hello_faces: Artifact) -> None:
    present = hello_faces.arrays["face_present"]
    assert features(hello_faces)["face_present_ratio"] >= 0.9
    assert set(np.floor(hello.times_s[present])) == set(range(9))
    assert features(hello_faces)["face_count_max"] == 1


def test_the_face_is_in_the_webcam_picture(hello: Clip, hello_faces: Artifact) -> None:
    """The picture spans x 50…163, y 37…122 of the 568 × 320 frame; a face is higher than wide."""
    height, width = hello.frames.shape[1:3]
    boxes = hello_faces.arrays["face_boxes_norm"] * [width, height, width, height]
    assert (boxes[:, :2] >= [50, 37]).all()
    assert (boxes[:, 2:] <= [163, 122]).all()
    assert (boxes[:, 3] - boxes[:, 1] > boxes[:, 2] - boxes[:, 0]).all()


def test_meshes_lie_on_their_faces(hello: Clip, hello_faces: Artifact) -> None:
    boxes, mesh = hello_faces.arrays["face_boxes_norm"], hello_faces.arrays["face_landmarks"]
    assert hello_faces.meta["coord_space"] == "norm_xy"
    assert np.isfinite(mesh).all()
    size = boxes[:, 2:] - boxes[:, :2]
    offset = (mesh[:, :, :2].mean(axis=1) - (boxes[:, :2] + boxes[:, 2:]) / 2) / size
    assert np.abs(offset).max() < 0.25
    spread = np.ptp(mesh[:, :, :2], axis=1) / size
    assert (spread > 0.6).all()
    assert (spread < 1.4).all()
    assert (mesh[:, 13, 1] < mesh[:, 152, 1]).all(), "the upper lip is above the chin"
    assert (mesh[:, 33, 0] < mesh[:, 263, 0]).all(), "the outer eye corners are left and right"


def test_one_man_is_one_track(hello_faces: Artifact) -> None:
    assert set(hello_faces.arrays["face_track_ids"].tolist()) == {0}


def test_scalars_follow_from_the_arrays(hello: Clip, hello_faces: Artifact) -> None:
    values, boxes = features(hello_faces), hello_faces.arrays["face_boxes_norm"]
    height, width = hello.frames.shape[1:3]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert values["primary_face_area_mean"] == pytest.approx(area.mean(), rel=1e-5)
    assert values["primary_face_area_max"] == pytest.approx(area.max(), rel=1e-5)
    assert values["primary_face_center_x_mean"] == pytest.approx((boxes[:, 0] + boxes[:, 2]).mean() / 2, rel=1e-5)
    assert values["primary_face_center_y_mean"] == pytest.approx((boxes[:, 1] + boxes[:, 3]).mean() / 2, rel=1e-5)
    assert values["first_face_time_s"] == pytest.approx(hello.times_s[0], abs=1e-6)
    assert values["longest_face_run_s"] == pytest.approx(hello.times_s[-1] - hello.times_s[0])

    px = hello_faces.arrays["face_landmarks"][:, :, :2] * np.array([width, height])

    def gap(a: int, b: int) -> np.ndarray:
        return np.hypot(*(px[:, a] - px[:, b]).T)

    mouth = gap(13, 14) / gap(78, 308)
    assert values["mouth_open_mean"] == pytest.approx(mouth.mean(), rel=1e-4)
    assert values["mouth_open_std"] == pytest.approx(mouth.std(), rel=1e-4)
    eye = (gap(160, 144) + gap(158, 153)) / (2 * gap(33, 133))
    assert values["eye_open_mean"] == pytest.approx(eye.mean(), rel=1e-4)
    assert 0.1 < values["eye_open_mean"] < 0.5, "an open eye is two to ten times as wide as high"


@pytest.mark.parametrize("factor", [0.75, 1.5])
def test_scaling_the_frame_leaves_the_face_in_place(
    bench: Bench, hello: Clip, hello_faces: Artifact, factor: float
) -> None:
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    scaled = [cv2.resize(frame, None, fx=factor, fy=factor, interpolation=method) for frame in hello.frames]
    faces = run(bench, Clip(np.stack(scaled), hello.times_s))
    for name in ("face_boxes_norm", "face_landmarks"):
        here, there = hello_faces.arrays[name], faces.arrays[name]
        np.testing.assert_allclose(there[..., :2], here[..., :2], atol=0.01)
    for name in ("face_present_ratio", "face_count_max", "longest_face_run_s"):
        assert features(faces)[name] == features(hello_faces)[name]


def test_mirrored_frames_give_mirrored_faces(bench: Bench, hello: Clip, hello_faces: Artifact) -> None:
    mirrored = run(bench, hello.mirrored())
    flipped = mirrored.arrays["face_boxes_norm"][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
    overlap = np.diag(iou_matrix(flipped, hello_faces.arrays["face_boxes_norm"]))
    assert (overlap >= 0.8).mean() >= 0.9


@pytest.fixture(scope="module")
def crowd(hello: Clip) -> Clip:
    """Twelve heads of two sizes side by side, then none."""
    head = hello.frames[3][40:120, 60:140]
    frame = np.full((320, 568, 3), 128, dtype=np.uint8)
    for k in range(12):
        size = 80 if k < 6 else 56
        x, y = 10 + (k % 6) * 92, 30 if k < 6 else 200
        frame[y : y + size, x : x + size] = cv2.resize(head, (size, size), interpolation=cv2.INTER_AREA)
    return clip_of(np.stack([frame, frame, np.full_like(frame, 128)]))


def test_all_faces_are_found_and_the_largest_kept(bench: Bench, crowd: Clip) -> None:
    every = run(bench, crowd, max_faces=20)
    assert every.arrays["face_count"].tolist() == [12, 12, 0]
    kept = run(bench, crowd)
    assert kept.arrays["face_count"].tolist() == [8, 8, 0]
    assert kept.arrays["face_row_splits"].tolist() == [0, 8, 16, 16]
    np.testing.assert_array_equal(kept.arrays["face_boxes_norm"][:8], every.arrays["face_boxes_norm"][:8])
    size = every.arrays["face_boxes_norm"][:12, 2:] - every.arrays["face_boxes_norm"][:12, :2]
    assert (np.diff(size.prod(axis=1)) <= 0).all()
    assert every.arrays["face_track_ids"].tolist() == [*range(12), *range(12)]
    assert features(kept)["face_present_ratio"] == pytest.approx(2 / 3)
    assert features(kept)["longest_face_run_s"] == 0.25


def test_profiles_are_faces_without_a_mesh(bench: Bench, profiles: Clip) -> None:
    faces = run(bench, profiles)
    mesh = faces.arrays["face_landmarks"]
    assert len(mesh) >= 3
    assert np.isnan(mesh).any(axis=(1, 2)).mean() >= 0.8
    assert features(faces)["primary_face_area_max"] < 0.02


def test_backs_of_heads_are_no_faces(bench: Bench, people: Clip) -> None:
    """People stand with their backs to the camera for nearly all of the clip."""
    assert features(run(bench, people))["face_present_ratio"] <= 0.06


@pytest.mark.parametrize("value", [0, 255])
def test_no_face_is_empty_with_measured_zeros(bench: Bench, value: int) -> None:
    faces = run(bench, flat_clip(value))
    assert (faces.status, faces.empty_reason) == ("empty", "no_faces_in_video")
    assert faces.arrays["face_landmarks"].shape == (0, 468, 3)
    measured = {name: number for name, number in features(faces).items() if not np.isnan(number)}
    assert measured == {"face_present_ratio": 0.0, "face_count_mean": 0.0, "face_count_max": 0.0}


def test_both_models_are_used_whatever_the_frames_show(bench: Bench, hello_faces: Artifact) -> None:
    assert run(bench, flat_clip(0)).models_used == hello_faces.models_used
    assert {model.model_name for model in hello_faces.models_used} == {"centerface_640", "facemesh_192"}


def test_one_frame(bench: Bench, hello: Clip) -> None:
    faces = run(bench, hello.take([4]))
    values = features(faces)
    assert values["longest_face_run_s"] == 0
    assert np.isnan(values["mouth_open_std"])
    assert values["mouth_open_mean"] >= 0


def test_the_gate_opens_two_seconds_around_a_person(bench: Bench, hello: Clip) -> None:
    persons = [0] * len(hello)
    persons[8] = 1
    faces = run(bench, hello, upstream=objects_of(hello, persons), person_gate="on")
    near = np.abs(hello.times_s - hello.times_s[8]) <= 2
    assert 0 < near.sum() < len(hello)
    np.testing.assert_array_equal(faces.arrays["face_present"], near)
    np.testing.assert_array_equal(faces.arrays["person_present"], np.array(persons) > 0)


def test_a_closed_gate_is_not_a_lack_of_faces(bench: Bench, hello: Clip) -> None:
    nobody = objects_of(hello, [0] * len(hello))
    gated = run(bench, hello, upstream=nobody, person_gate="on")
    assert (gated.status, gated.empty_reason) == ("empty", "no_person_detections")
    assert run(bench, hello.take(slice(0, 2)), upstream=objects_of(hello.take(slice(0, 2)), [0, 0])).status == "ok"


def test_raw_meshes_are_kept_on_request(bench: Bench, hello: Clip, hello_faces: Artifact) -> None:
    """The clip is sampled every third of a second, so smoothing leaves the meshes alone; played fast it does not."""
    assert "face_landmarks_raw" not in hello_faces.arrays
    slow = run(bench, hello, keep_raw_landmarks=True).arrays
    np.testing.assert_array_equal(slow["face_landmarks_raw"], slow["face_landmarks"])
    fast = run(bench, Clip(hello.frames, hello.times_s / 20), keep_raw_landmarks=True).arrays
    np.testing.assert_allclose(fast["face_landmarks_raw"], slow["face_landmarks_raw"], atol=1e-6)
    assert np.abs(fast["face_landmarks_raw"] - fast["face_landmarks"]).max() > 1e-3


def test_boxes_of_other_frames_are_refused(bench: Bench, hello: Clip, hello_objects: Artifact) -> None:
    upstream = as_upstream(hello_objects)
    shifted = replace(upstream, arrays={**upstream.arrays, "frame_indices": upstream.arrays["frame_indices"] + 1})
    undeclared = replace(upstream, meta={})
    for broken in (shifted, undeclared):
        with pytest.raises(TrendFlowError) as caught:
            run(bench, hello, upstream=broken)
        assert caught.value.error_code == "artifact_validation_failed"


@pytest.mark.parametrize(
    "params", [{"person_gate": True}, {"max_faces": 0}, {"max_faces": "8"}, {"keep_raw_landmarks": 1}]
)
def test_senseless_parameters_are_refused(bench: Bench, hello: Clip, params: dict[str, Any]) -> None:
    with pytest.raises(TrendFlowError) as caught:
        run(bench, hello.take([0]), **params)
    assert caught.value.error_code == "config_invalid"
