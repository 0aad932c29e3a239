"""Cut detection on pictures made by formula: what must and what must not be an event."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trendflow.components.visual import cut_detection
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow_tests.components.cuts.clips import Clip, as_upstream, events, feature
from trendflow_tests.components.cuts.scenes import brighten, dim, dissolve, pan, picture, shot
from trendflow_tests.components.schema_check import schema_problems

FPS = 24


def detect(frames: np.ndarray, every: int = 1, fps: int = FPS) -> Artifact:
    artifact = cut_detection.run(Clip.at_rate(frames, fps).inputs(every=every))
    assert schema_problems(cut_detection, artifact) == []
    return artifact


@settings(max_examples=15)
@given(seeds=st.lists(st.integers(0, 500), min_size=1, max_size=5, unique=True), data=st.data())
def test_shots_joined_are_cut_at_every_joint(seeds: list[int], data: st.DataObject) -> None:
    lengths = [data.draw(st.integers(8, 40)) for _ in seeds]
    shots = [shot(seed, n) for seed, n in zip(seeds, lengths, strict=True)]
    # A cut between pictures of nearly the same colours, as one pair in fifty has them, is not always seen.
    colours = [frames.mean(axis=(0, 1, 2)) for frames in shots]
    assume(all(np.abs(after - before).max() >= 20 for before, after in pairwise(colours)))
    artifact = detect(np.concatenate(shots))
    joints = np.cumsum(lengths)[:-1].tolist()
    assert events(artifact, "hard_cut") == joints
    assert feature(artifact, "hard_cut_count") == len(joints)
    assert artifact.arrays["shot_start_source_frame"].tolist() == [0, *joints]
    assert feature(artifact, "first_cut_time_s") == pytest.approx(joints[0] / FPS) if joints else True


@pytest.mark.parametrize("offset", [-30, -15, 15, 30, 50])
def test_a_brightness_step_is_no_cut(offset: float) -> None:
    frames = shot(3, 60)
    frames[30:] = brighten(frames[30:], offset)
    assert events(detect(frames), "hard_cut") == []


@pytest.mark.parametrize("offset", [-30, 30])
def test_a_brightness_step_hides_no_cut(offset: float) -> None:
    frames = np.concatenate([shot(3, 30), brighten(shot(4, 30), offset)])
    assert events(detect(frames), "hard_cut") == [30]


@pytest.mark.parametrize("offset", [-40, 25, 60])
def test_a_constant_brightness_offset_changes_no_cut(offset: float) -> None:
    frames = np.concatenate([shot(5, 40), shot(6, 40)])
    assert events(detect(brighten(frames, offset)), "hard_cut") == [40]


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize("level", [-90, 90])
def test_a_flash_is_a_flash_and_no_cut(length: int, level: float) -> None:
    frames = shot(8, 60)
    frames[30 : 30 + length] = brighten(frames[30 : 30 + length], level)
    artifact = detect(frames)
    assert events(artifact, "hard_cut") == []
    assert events(artifact, "flash") == [30]
    assert len(artifact.arrays["shot_start_time_s"]) == 1


def test_a_long_bright_stretch_is_no_flash() -> None:
    frames = shot(8, 60)
    frames[20:40] = brighten(frames[20:40], 90)
    assert events(detect(frames), "flash") == []


@pytest.mark.parametrize("sigma", [10, 25, 40])
def test_noise_is_no_cut(sigma: float) -> None:
    frames = shot(9, 60).astype(np.float64)
    noisy = frames + np.random.default_rng(0).normal(0, sigma, frames.shape)
    assert events(detect(np.clip(noisy, 0, 255).astype(np.uint8)), "hard_cut") == []


def test_grey_noise_is_no_cut() -> None:
    """Grey pixels have no hue; hard hue bins would see colours jump."""
    grey = np.random.default_rng(1).normal(128, 30, (60, 54, 96, 1))
    assert events(detect(np.clip(grey, 0, 255).astype(np.uint8).repeat(3, axis=3)), "hard_cut") == []


@pytest.mark.parametrize("speed", [2.0, 6.0, 12.0])
@pytest.mark.parametrize("seed", [11, 12])
def test_a_fast_pan_is_no_cut(seed: int, speed: float) -> None:
    """12 of 96 pixels per frame cross the picture in a third of a second; the pan starts and stops abruptly."""
    image = picture(seed)
    still = pan(image, 20, 0.0)
    moving = pan(image, 30, speed)
    end = pan(image, 20, 0.0, start=29 * speed)
    assert events(detect(np.concatenate([still, moving, end])), "hard_cut") == []


def test_of_two_cuts_closer_than_the_separation_only_the_stronger_counts() -> None:
    frames = np.concatenate([shot(20, 30), shot(21, 3), shot(22, 30)])
    (cut,) = events(detect(frames), "hard_cut")
    assert cut in (30, 33)


def test_a_damaged_frame_hides_and_makes_no_cut() -> None:
    frames = np.concatenate([shot(20, 30), shot(21, 30)])
    frames[12] = 0
    clip = Clip.at_rate(frames, FPS)
    dense = clip.dense()
    dense["corrupt_mask"][12] = True
    assert events(cut_detection.run(clip.inputs(dense=dense)), "hard_cut") == [30]


@pytest.mark.parametrize(("kind", "rising"), [("fade_in", True), ("fade_out", False)])
@pytest.mark.parametrize("length", [6, 20, 60])
def test_a_fade_is_located_at_its_centre(kind: str, rising: bool, length: int) -> None:
    still, ramp = 24, np.linspace(0, 1, length + 1)
    gains = np.concatenate([np.zeros(still), ramp, np.ones(still)])
    frames = dim(shot(30, len(gains)), gains if rising else gains[::-1])
    artifact = detect(frames)
    (frame,) = events(artifact, kind)
    assert frame == pytest.approx(still + length / 2, abs=2)
    assert feature(artifact, "soft_transition_count") == 1
    assert feature(artifact, "hard_cut_count") == 0
    assert artifact.arrays["shot_start_source_frame"].tolist() == [0, frame]


def test_dip_to_black_is_a_fade_out_and_a_fade_in() -> None:
    down = np.linspace(1, 0, 13)
    frames = np.concatenate(
        [dim(shot(31, 43), np.r_[np.ones(30), down]), dim(shot(32, 43), np.r_[down[::-1], np.ones(30)])]
    )
    artifact = detect(frames)
    assert (len(events(artifact, "fade_out")), len(events(artifact, "fade_in"))) == (1, 1)
    assert events(artifact, "hard_cut") == []


def test_a_fade_inside_the_bright_range_is_none() -> None:
    frames = dim(shot(33, 90), np.r_[np.ones(30), np.linspace(1, 0.5, 30), np.full(30, 0.5)])
    artifact = detect(frames)
    assert feature(artifact, "soft_transition_count") == 0


def test_cut_from_black_is_a_cut_and_no_fade() -> None:
    frames = np.concatenate([np.zeros((30, 54, 96, 3), np.uint8), shot(34, 30)])
    artifact = detect(frames)
    assert events(artifact, "hard_cut") == [30]
    assert events(artifact, "fade_in") == []


@pytest.mark.parametrize("length", [12, 24, 48])
def test_a_dissolve_is_confirmed_by_blending(length: int) -> None:
    frames = dissolve(shot(42, 60 + length, 0.05), shot(44, 60 + length, 0.05), length)
    artifact = detect(frames)
    (frame,) = events(artifact, "dissolve")
    assert frame == pytest.approx(60 + length / 2, abs=3)
    assert artifact.arrays["dissolve_channel_present"]
    assert feature(artifact, "dissolve_count") == 1
    assert events(artifact, "hard_cut") == []


def test_adapting_exposure_is_no_dissolve() -> None:
    """A linear brightness ramp is a perfect blend of its ends and yet one scene."""
    frames = shot(42, 90)
    ramp = np.clip(np.arange(90) - 30, 0, 24) * 2.0
    assert events(detect(np.stack([brighten(f, o) for f, o in zip(frames, ramp, strict=True)])), "dissolve") == []


def test_sparse_samples_confirm_no_dissolve_and_say_so() -> None:
    artifact = detect(dissolve(shot(42, 84), shot(44, 84), 24), every=16)
    assert not artifact.arrays["dissolve_channel_present"]
    assert np.isnan(feature(artifact, "dissolve_count"))
    assert events(artifact, "dissolve") == []
    assert "dissolve_count" in artifact.meta["absent_features"]


def test_absent_sources_are_named() -> None:
    artifact = detect(shot(43, 40))
    assert set(artifact.meta["absent_features"]) == {
        *("whip_pan_per_min", "zoom_per_min", "flow_mag"),
        *("jump_cut_ratio", "deep_cosine_dist"),
        *("first_cut_time_s", "cut_strength_mean", "shot_duration_std_s", "shot_duration_cv"),
    }
    for name in ("whip_pan_per_min", "zoom_per_min", "jump_cut_ratio"):
        assert np.isnan(feature(artifact, name))
    assert not artifact.arrays["flow_valid_mask"].any()
    assert not artifact.arrays["deep_valid_mask"].any()
    assert artifact.arrays["ssim_valid_mask"].all()


@pytest.mark.parametrize("level", [0, 255])
def test_a_uniform_video_is_one_shot(level: int) -> None:
    artifact = detect(np.full((48, 54, 96, 3), level, np.uint8))
    assert len(artifact.arrays["event_type_id"]) == 0
    assert feature(artifact, "hard_cut_count") == 0
    assert feature(artifact, "shot_duration_mean_s") == pytest.approx(2.0)
    for name in ("shot_duration_std_s", "shot_duration_cv", "first_cut_time_s", "cut_strength_mean"):
        assert np.isnan(feature(artifact, name))
    assert feature(artifact, "shot_duration_entropy") == 0


def test_one_frame_is_too_few() -> None:
    artifact = detect(shot(44, 1))
    assert (artifact.status, artifact.empty_reason) == ("empty", "too_few_frames")
    assert np.isnan(artifact.arrays["feature_values"]).all()
    assert artifact.arrays["union_shot_ids"].tolist() == [0]


def test_every_union_frame_knows_its_shot() -> None:
    frames = np.concatenate([shot(seed, 30) for seed in (50, 51, 52)])
    artifact = detect(frames, every=7)
    assert artifact.arrays["union_shot_ids"].tolist() == [frame // 30 for frame in range(0, 90, 7)]


def test_results_do_not_depend_on_the_sampling_of_the_union() -> None:
    frames = np.concatenate([shot(seed, 30) for seed in (50, 51, 52)])
    dense, sparse = detect(frames, every=1), detect(frames, every=9)
    for key in ("event_time_s", "event_strength", "shot_start_time_s", "shot_end_time_s", "cut_score"):
        np.testing.assert_array_equal(dense.arrays[key], sparse.arrays[key])


def test_union_times_off_the_dense_axis_are_refused() -> None:
    inputs = Clip.at_rate(shot(60, 30), FPS).inputs()
    arrays = dict(inputs.upstream["segmenter"].arrays)
    arrays["union_timestamps_sec"] = arrays["union_timestamps_sec"] + 1e-3
    with pytest.raises(TrendFlowError, match="dense time axis") as caught:
        cut_detection.run(replace(inputs, upstream={"segmenter": as_upstream("segmenter", arrays)}))
    assert caught.value.error_code == "artifact_validation_failed"


def test_a_union_frame_beyond_the_video_is_refused() -> None:
    inputs = Clip.at_rate(shot(60, 30), FPS).inputs()
    arrays = dict(inputs.upstream["segmenter"].arrays)
    arrays["union_frame_indices_source"] = arrays["union_frame_indices_source"] + 1
    with pytest.raises(TrendFlowError, match="do not have") as caught:
        cut_detection.run(replace(inputs, upstream={"segmenter": as_upstream("segmenter", arrays)}))
    assert caught.value.error_code == "artifact_validation_failed"


@pytest.mark.parametrize("key", ["hist_l1", "lowres_mad", "luma_mean", "pts_sec", "corrupt_mask"])
def test_missing_dense_signals_are_typed(key: str) -> None:
    clip = Clip.at_rate(shot(60, 30), FPS)
    dense = clip.dense()
    inputs = clip.inputs(dense=dense)
    with pytest.raises(TrendFlowError) as caught:
        cut_detection.run(replace(inputs, dense={name: value for name, value in dense.items() if name != key}))
    assert caught.value.error_code == "dependency_missing"


def test_inputs_without_dense_signals_or_segmenter_are_typed() -> None:
    inputs = Clip.at_rate(shot(60, 30), FPS).inputs()
    for change in ({"dense": None}, {"upstream": {}}, {"samples": None}):
        with pytest.raises(TrendFlowError) as caught:
            cut_detection.run(replace(inputs, **change))
        assert caught.value.error_code == "dependency_missing"
