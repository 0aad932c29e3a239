"""Quality per frame and per shot, from frames and synthetic upstream artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from trendflow.components.base import ComponentInputs, Upstream
from trendflow.components.visual import shot_quality
from trendflow.components.visual.shot_quality import FRAME_FEATURES, MEASURED
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.prompt_bank import PROMPTS
from trendflow_tests.components.visual import upstreams
from trendflow_tests.components.visual.clips import ArrayReader, Bench, Clip, assert_same, features, flat_clip

QUALITIES = PROMPTS.sets["shot_quality"].classes


def inputs_of(
    bench: Bench,
    clip: Clip,
    *,
    shot_starts_s: Sequence[float] = (0.0,),
    duration_s: float | None = None,
    dense: dict[str, np.ndarray] | None = None,
    **upstream: Upstream,
) -> ComponentInputs:
    end = duration_s or float(clip.times_s[-1]) + 0.25
    dense_s = np.arange(0, end, 1 / 25) if dense is None else dense["pts_sec"]
    inputs = bench.inputs(shot_quality, clip)
    times = clip.times_s
    found = {
        "segmenter": upstreams.upstream("segmenter", {}),
        "cut_detection": upstreams.cuts(shot_starts_s, end, times, dense_s),
        "core_object_detections": upstreams.objects(times),
        "core_face_landmarks": upstreams.faces(times),
        **upstream,
    }
    return replace(inputs, upstream=found, dense=dense or upstreams.dense(dense_s))


def run(bench: Bench, clip: Clip, **arguments: Any) -> Artifact:
    artifact = shot_quality.run(inputs_of(bench, clip, **arguments))
    assert bench.problems(shot_quality, artifact, len(clip)) == []
    return artifact


def column(artifact: Artifact, name: str, of: str = "frame_features") -> np.ndarray:
    names = artifact.arrays["frame_feature_names"].tolist()
    return artifact.arrays[of][:, names.index(name)]


def grey_clip(values: Sequence[int], times_s: Sequence[float] | None = None) -> Clip:
    frames = np.stack([np.full((24, 32, 3), value, dtype=np.uint8) for value in values])
    return Clip(frames, np.arange(len(values)) * 1.0 if times_s is None else np.array(times_s))


def test_names_and_tiers(bench: Bench, hello: Clip) -> None:
    artifact = run(bench, hello.take(slice(0, 3)))
    assert tuple(artifact.arrays["frame_feature_names"]) == FRAME_FEATURES
    assert len(FRAME_FEATURES) == 22
    scalars = set(features(artifact))
    assert {f"{name}_{kind}" for name in MEASURED for kind in ("mean", "std")} <= scalars
    assert not any(name.startswith(("det_count", "face_count", "depth_", "max_person")) for name in scalars)


def test_the_shipped_clip(bench: Bench, hello: Clip, hello_objects: Artifact, hello_faces: Artifact) -> None:
    artifact = run(
        bench,
        hello,
        core_object_detections=Upstream("core_object_detections", "ok", None, hello_objects.arrays, hello_objects.meta),
        core_face_landmarks=Upstream("core_face_landmarks", "ok", None, hello_faces.arrays, hello_faces.meta),
    )
    present = hello_faces.arrays["face_present"]
    np.testing.assert_array_equal(np.isfinite(column(artifact, "face_sharpness_log")), present)
    np.testing.assert_array_equal(column(artifact, "face_count"), hello_faces.arrays["face_count"])
    np.testing.assert_array_equal(column(artifact, "det_count"), hello_objects.arrays["det_count"])
    i = int(np.argmax(present))
    box = hello_faces.arrays["face_boxes_norm"][0] * np.tile([hello.frames.shape[2], hello.frames.shape[1]], 2)
    x1, y1, x2, y2 = box.round().astype(int)
    luma = hello.frames[i, y1:y2, x1:x2] @ [0.2126, 0.7152, 0.0722] / 255
    assert column(artifact, "face_luma_mean")[i] == pytest.approx(luma.mean(), abs=0.02)
    values = features(artifact)
    assert values["blurry_shot_ratio"] == values["dark_shot_ratio"] == values["clipped_shot_ratio"] == 0
    assert np.isnan(values["luma_mean_std"]), "one shot has no deviation"
    assert values["underexposure_ratio_mean"] > 0.3, "the terminal window is black"


def test_black_and_white(bench: Bench) -> None:
    black, white = (run(bench, flat_clip(value, n=2, height=40, width=60)) for value in (0, 255))
    assert column(black, "underexposure_ratio").tolist() == column(black, "letterbox_frac").tolist() == [1, 1]
    assert column(white, "overexposure_ratio").tolist() == [1, 1]
    assert features(black)["dark_shot_ratio"] == 1
    assert features(white)["clipped_shot_ratio"] == features(white)["blurry_shot_ratio"] == 1


def test_extreme_clips(bench: Bench, extreme: Clip) -> None:
    artifact = run(bench, extreme)
    assert artifact.status == "ok"
    assert artifact.arrays["shot_frame_count"].tolist() == [len(extreme)]


def test_scalars_are_weighted_by_shot_duration(bench: Bench) -> None:
    """Shots of 1, 2 and 5 s with luma .1, .5 and 1 (and one of 2 s that no frame falls into)."""
    grey = [26, 26, 128, 128, 255]
    clip = grey_clip(grey, [0.0, 0.5, 1.0, 2.0, 5.0])
    artifact = run(bench, clip, shot_starts_s=(0.0, 1.0, 3.0, 5.0), duration_s=10.0)
    means = column(artifact, "luma_mean", "shot_features_mean")
    np.testing.assert_allclose(means, [26 / 255, 128 / 255, np.nan, 1.0], rtol=1e-5)
    assert artifact.arrays["shot_frame_count"].tolist() == [2, 2, 0, 1]
    assert artifact.arrays["shot_ids"].tolist() == [0, 0, 1, 1, 3]
    weights, shot = np.array([1, 2, 5]) / 8, np.array([26, 128, 255]) / 255
    mean = (weights * shot).sum()
    values = features(artifact)
    assert values["luma_mean_mean"] == pytest.approx(mean, rel=1e-5)
    assert values["luma_mean_std"] == pytest.approx(np.sqrt((weights * (shot - mean) ** 2).sum()), rel=1e-5)
    assert values["dark_shot_ratio"] == pytest.approx(1 / 3), "of the shots that have frames"
    assert values["clipped_shot_ratio"] == pytest.approx(1 / 3)
    assert values["blurry_shot_ratio"] == 1


def test_shot_statistics_are_those_of_their_frames(bench: Bench) -> None:
    clip = grey_clip([10, 50, 90, 200, 210])
    artifact = run(bench, clip, shot_starts_s=(0.0, 2.5), duration_s=5.0)
    luma = np.array([10, 50, 90, 200, 210]) / 255
    for kind, function in {"mean": np.mean, "std": np.std, "min": np.min, "max": np.max}.items():
        expected = [function(luma[:3]), function(luma[3:])]
        np.testing.assert_allclose(column(artifact, "luma_mean", f"shot_features_{kind}"), expected, rtol=1e-5)
    lone = run(bench, grey_clip([10, 50]), shot_starts_s=(0.0, 0.5), duration_s=2.0)
    assert np.isnan(column(lone, "luma_mean", "shot_features_std")).all()


def test_order_inside_a_shot_does_not_matter(bench: Bench) -> None:
    rng = np.random.default_rng(2)
    clip = Clip(rng.integers(0, 256, (9, 30, 40, 3), dtype=np.uint8), np.arange(9) * 1.0)
    order = np.array([2, 0, 3, 1, 4, 8, 6, 7, 5])
    shots = {"shot_starts_s": (0.0, 3.5, 4.5), "duration_s": 9.0}
    before, after = run(bench, clip, **shots), run(bench, Clip(clip.frames[order], clip.times_s), **shots)
    for name in ("shot_features_mean", "shot_features_std", "shot_features_min", "shot_features_max", "feature_values"):
        np.testing.assert_allclose(after.arrays[name], before.arrays[name], rtol=1e-5, atol=1e-7, err_msg=name)
    assert not np.array_equal(after.arrays["frame_features"], before.arrays["frame_features"])


def test_a_frame_is_measured_alone(bench: Bench, hello: Clip) -> None:
    whole = run(bench, hello)
    part = run(bench, hello.take(slice(17, 20)))
    skip = FRAME_FEATURES.index("flicker_std_1s")
    keep = [i for i in range(len(FRAME_FEATURES)) if i != skip]
    np.testing.assert_array_equal(
        part.arrays["frame_features"][:, keep], whole.arrays["frame_features"][17:20][:, keep]
    )
    assert_same(whole, run(bench, hello))


def test_each_frame_is_read_once(bench: Bench) -> None:
    inputs = inputs_of(bench, grey_clip(list(range(40))))
    shot_quality.run(inputs)
    assert inputs.samples is not None
    assert isinstance(inputs.samples.reader, ArrayReader)
    assert inputs.samples.reader.reads == list(range(40))


def test_subject_is_the_primary_face_else_the_largest_person(bench: Bench) -> None:
    clip = Clip(np.zeros((4, 60, 80, 3), np.uint8), np.arange(4) * 1.0)
    corner, centre = (0.0, 0.0, 0.2, 0.2), (0.4, 0.4, 0.6, 0.6)
    artifact = run(
        bench,
        clip,
        core_object_detections=upstreams.objects(
            clip.times_s, {0: [centre], 1: [corner, (0.5, 0.5, 1.0, 1.0)], 2: [corner]}, chairs=1
        ),
        core_face_landmarks=upstreams.faces(clip.times_s, {0: [(0.9, 0.5, 0.92, 0.52), (0.0, 0.4, 0.2, 0.6)]}),
    )
    half_diagonal = np.hypot(80, 60) / 2
    expected = [
        0.4 * 80 / half_diagonal,  # the larger face, left of the centre
        np.hypot(0.25 * 80, 0.25 * 60) / half_diagonal,  # the larger person
        np.hypot(0.4 * 80, 0.4 * 60) / half_diagonal,
        np.nan,  # chairs are no subject
    ]
    np.testing.assert_allclose(column(artifact, "subject_offset"), expected, rtol=1e-5)
    np.testing.assert_allclose(column(artifact, "face_area_frac"), [0.04, 0, 0, 0], rtol=1e-5)
    assert column(artifact, "face_count").tolist() == [2, 0, 0, 0]
    assert column(artifact, "det_count").tolist() == [2, 3, 2, 1]
    np.testing.assert_array_equal(np.isnan(column(artifact, "face_luma_mean")), [False, True, True, True])
    assert artifact.arrays["frame_feature_present_ratio"][FRAME_FEATURES.index("face_luma_mean")] == 0.25


def test_flicker_comes_from_the_dense_luma_of_the_own_shot(bench: Bench) -> None:
    dense_s = np.arange(0, 6, 1 / 50)
    luma = np.where(dense_s < 3, 0.4 + 0.05 * (-1.0) ** np.arange(len(dense_s)), 0.9)
    clip = grey_clip([100, 100, 100, 230, 230, 230], [0.6, 1.5, 2.9, 3.1, 4.5, 5.9])
    artifact = run(
        bench, clip, shot_starts_s=(0.0, 3.0), duration_s=6.0, dense=upstreams.dense(dense_s, luma.astype(np.float32))
    )
    found = column(artifact, "flicker_std_1s")
    # ±0.05 in alternation; the mean over 11 frames keeps a share of 1/11 of either sign.
    np.testing.assert_allclose(found[:3], 0.05 * (1 + 1 / 11), rtol=0.03)
    np.testing.assert_allclose(found[3:], 0, atol=1e-6)


def test_depth_rows_are_passed_on(bench: Bench) -> None:
    clip = grey_clip([50, 60, 70])
    without = run(bench, clip)
    assert np.isnan(column(without, "depth_complexity_score")).all()
    assert without.meta["absent_features"]["depth_complexity_score"] == "core_depth_midas is not available"
    depth = upstreams.upstream(
        "core_depth_midas",
        {
            **upstreams.indices_and_times(clip.times_s),
            "depth_complexity_score": np.array([0.1, np.nan, 0.3], np.float32),
            "foreground_background_separation_proxy": np.array([0.5, np.nan, 0.7], np.float32),
        },
    )
    artifact = run(bench, clip, core_depth_midas=depth)
    np.testing.assert_allclose(column(artifact, "depth_complexity_score"), [0.1, np.nan, 0.3], rtol=1e-6)
    assert column(artifact, "depth_complexity_score", "shot_features_mean")[0] == pytest.approx(0.2)
    assert "depth_complexity_score" not in artifact.meta["absent_features"]


def test_without_prompts_there_are_no_prompt_outputs(bench: Bench) -> None:
    clip = grey_clip([50, 60])
    for extra, reason in (
        ({}, "core_clip is not available"),
        ({"core_clip": upstreams.prompts(clip.times_s, {})}, "core_clip has no prompt probabilities"),
    ):
        artifact = run(bench, clip, **extra)
        assert not any(name.startswith("shot_quality_") for name in artifact.arrays)
        assert artifact.meta["absent_features"]["prob_mean__"] == reason
        values = {name: value for name, value in features(artifact).items() if name.startswith("prob_mean__")}
        assert list(values) == [f"prob_mean__{name}" for name in QUALITIES]
        assert np.isnan(list(values.values())).all()


def test_prompt_probabilities_per_shot(bench: Bench) -> None:
    clip = grey_clip([50, 60, 70], [0.0, 1.0, 2.0])
    probs = np.full((3, 10), 0.02)
    probs[[0, 1, 2], [3, 3, 7]] = 0.82
    probs[1, 3], probs[1, 5] = 0.52, 0.32
    clip_artifact = upstreams.prompts(clip.times_s, {"shot_quality": (QUALITIES, probs)})
    artifact = run(bench, clip, shot_starts_s=(0.0, 1.5, 3.0), duration_s=6.0, core_clip=clip_artifact)
    arrays = artifact.arrays
    np.testing.assert_allclose(arrays["shot_quality_probs_mean"][0], probs[:2].mean(axis=0), rtol=1e-5)
    assert arrays["shot_quality_topk_ids"].tolist() == [[3, 5, 0], [7, 0, 1], [-1, -1, -1]]
    np.testing.assert_allclose(arrays["shot_quality_conf_mean"], [0.67, 0.82, np.nan], rtol=1e-5)
    row = np.array([0.82] + [0.02] * 9)
    expected = -(row * np.log(row)).sum() / np.log(10)
    assert arrays["shot_quality_entropy_mean"][1] == pytest.approx(expected, rel=1e-5)
    # Both shots with frames last 1.5 s; the third, of 3 s, has none.
    assert features(artifact)[f"prob_mean__{QUALITIES[3]}"] == pytest.approx((0.67 + 0.02) / 2, rel=1e-5)
    assert artifact.warnings == ()


def test_prompts_that_tell_nothing_apart_give_no_scalars(bench: Bench) -> None:
    clip = grey_clip([50, 60])
    even = np.full((2, 10), 0.1)
    artifact = run(bench, clip, core_clip=upstreams.prompts(clip.times_s, {"shot_quality": (QUALITIES, even)}))
    assert artifact.warnings == ("near_uniform_probs",)
    assert np.isnan([value for name, value in features(artifact).items() if name.startswith("prob_mean__")]).all()
    assert "prob_mean__" in artifact.meta["absent_features"]


def test_twenty_minutes_at_a_low_rate(bench: Bench) -> None:
    times = np.linspace(0, 1199.5, 60)
    clip = grey_clip([(37 * i) % 256 for i in range(60)], times.tolist())
    artifact = run(bench, clip, shot_starts_s=tuple(np.arange(0, 1200, 3.0)), duration_s=1200.0)
    assert len(artifact.arrays["shot_frame_count"]) == 400
    assert artifact.arrays["shot_frame_count"].sum() == 60
    assert np.isfinite(features(artifact)["luma_mean_mean"])


def refused(inputs: ComponentInputs) -> str:
    with pytest.raises(TrendFlowError) as caught:
        shot_quality.run(inputs)
    return caught.value.error_code


@pytest.mark.parametrize("name", ["core_object_detections", "core_face_landmarks", "core_clip"])
def test_upstream_of_other_frames_is_refused(bench: Bench, name: str) -> None:
    clip = grey_clip([10, 20, 30])
    source = upstreams.prompts(clip.times_s, {}) if name == "core_clip" else inputs_of(bench, clip).upstream[name]
    shifted = replace(source, arrays={**source.arrays, "frame_indices": np.array([0, 1, 3], np.int32)})
    assert refused(inputs_of(bench, clip, **{name: shifted})) == "artifact_validation_failed"


@pytest.mark.parametrize("name", ["core_object_detections", "core_face_landmarks"])
def test_boxes_in_unknown_units_are_refused(bench: Bench, name: str) -> None:
    clip = grey_clip([10, 20])
    bare = replace(inputs_of(bench, clip).upstream[name], meta={"coord_space": "px"})
    assert refused(inputs_of(bench, clip, **{name: bare})) == "artifact_validation_failed"


def test_shots_that_do_not_cover_frames_or_signals_are_refused(bench: Bench) -> None:
    clip = grey_clip([10, 20, 30])
    cuts = inputs_of(bench, clip).upstream["cut_detection"]
    for key, value in (
        ("union_shot_ids", np.array([0, 0], np.int32)),
        ("union_shot_ids", np.array([0, 0, 5], np.int32)),
        ("shot_end_source_frame", np.array([3])),
    ):
        broken = replace(cuts, arrays={**cuts.arrays, key: value})
        assert refused(inputs_of(bench, clip, cut_detection=broken)) == "artifact_validation_failed"


def test_what_is_missing_is_named(bench: Bench) -> None:
    inputs = inputs_of(bench, grey_clip([10, 20]))
    assert refused(replace(inputs, dense=None)) == "dependency_missing"
    for name in ("cut_detection", "core_object_detections", "core_face_landmarks"):
        rest = {key: value for key, value in inputs.upstream.items() if key != name}
        assert refused(replace(inputs, upstream=rest)) == "dependency_missing"
