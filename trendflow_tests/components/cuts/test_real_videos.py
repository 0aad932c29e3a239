"""Cuts of real videos."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from trendflow.components.visual import cut_detection
from trendflow_tests.components.cuts.clips import Clip, events, feature
from trendflow_tests.components.cuts.scenes import dissolve
from trendflow_tests.components.cuts.truth import HARD_CUTS
from trendflow_tests.components.schema_check import schema_problems

# Each video is decoded once, on the worker that has all of these tests.
pytestmark = pytest.mark.xdist_group("cuts-of-real-videos")

RealClip = Callable[[str], Clip]


@pytest.mark.parametrize("name", HARD_CUTS)
def test_hard_cuts_are_found_and_nothing_else(real_clip: RealClip, name: str) -> None:
    artifact = cut_detection.run(real_clip(name).inputs())
    assert events(artifact, "hard_cut") == HARD_CUTS[name]
    assert schema_problems(cut_detection, artifact) == []


def test_accuracy_on_labelled_videos(real_clip: RealClip, record_property: Any) -> None:
    """F1 within one frame over all labelled videos; run with -s to print it."""
    found = missed = extra = 0
    for name, truth in HARD_CUTS.items():
        detected = events(cut_detection.run(real_clip(name).inputs()), "hard_cut")
        hits = sum(any(abs(frame - cut) <= 1 for frame in detected) for cut in truth)
        found, missed, extra = found + hits, missed + len(truth) - hits, extra + len(detected) - hits
    f1 = 2 * found / (2 * found + missed + extra)
    record_property("hard_cut_f1", f1)
    print(f"hard cuts: F1 {f1:.3f} with {found} found, {missed} missed, {extra} extra in {len(HARD_CUTS)} videos")
    assert f1 == 1.0


def test_a_variable_rate_copy_keeps_the_times(real_clip: RealClip) -> None:
    artifact = cut_detection.run(real_clip("bbb_vfr_drop3.mp4").inputs())
    kinds = artifact.arrays["event_type_id"]
    np.testing.assert_allclose(artifact.arrays["event_time_s"][kinds == 0], [11.875, 15.75, 23.042], atol=0.042)


@pytest.mark.parametrize(("of", "dropped"), [(2, [1]), (5, [3]), (7, [1, 2, 5])])
def test_dropped_frames_move_no_cut_by_more_than_a_frame(real_clip: RealClip, of: int, dropped: list[int]) -> None:
    clip = real_clip("big_buck_bunny_480p_30s.mp4")
    kept = np.flatnonzero(~np.isin(np.arange(len(clip.frames)) % of, dropped))
    artifact = cut_detection.run(Clip(clip.frames[kept], clip.pts[kept], clip.time_base).inputs())
    times = artifact.arrays["event_time_s"][artifact.arrays["event_type_id"] == 0]
    assert len(times) == 3
    gap = np.diff(clip.pts[kept]).max() * clip.time_base[0] / clip.time_base[1]
    np.testing.assert_allclose(times, [11.875, 15.75, 23.0417], atol=gap + 1e-3)


def test_retimed_copies_keep_their_cuts(real_clip: RealClip) -> None:
    """Played at half and at double speed the same frames are cuts, and cuts per minute follow the speed."""
    clip = real_clip("big_buck_bunny_480p_30s.mp4")
    normal = cut_detection.run(clip.inputs())
    for speed in (0.5, 2.0):
        base = (clip.time_base[0], round(clip.time_base[1] * speed))
        artifact = cut_detection.run(Clip(clip.frames, clip.pts, base).inputs())
        assert events(artifact, "hard_cut") == [285, 378, 553]
        ratio = feature(artifact, "cuts_per_minute") / feature(normal, "cuts_per_minute")
        assert ratio == pytest.approx(speed, rel=0.01)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("people_139s.mp4", "cars_topdown_30s.mp4"),
        ("hello_face_speech.mp4", "nasa_two_streams.mp4"),
        ("nasa_two_streams.mp4", "people_139s.mp4"),
    ],
)
def test_joining_unrelated_clips_adds_one_cut(real_clip: RealClip, first: str, second: str) -> None:
    a, b = real_clip(first).frames[150:350], real_clip(second).frames[180:330]
    alone = [events(cut_detection.run(Clip.at_rate(frames, 25).inputs()), "hard_cut") for frames in (a, b)]
    joined = events(cut_detection.run(Clip.at_rate(np.concatenate([a, b]), 25).inputs()), "hard_cut")
    assert joined == [*alone[0], len(a), *(frame + len(a) for frame in alone[1])]


def test_fades_between_black_and_white(real_clip: RealClip) -> None:
    """Six ramps of about 1.7 s, starting and ending at black at 0, 3.3 and 6.7 s."""
    artifact = cut_detection.run(real_clip("fades.mp4").inputs())
    arrays = artifact.arrays
    assert [arrays["event_type_names"][kind] for kind in arrays["event_type_id"]] == ["fade_in", "fade_out"] * 3
    np.testing.assert_allclose(arrays["event_time_s"], [0.83, 2.5, 4.17, 5.83, 7.5, 9.17], atol=0.08)
    assert (arrays["event_strength"] > 0.9).all()
    assert feature(artifact, "soft_transition_count") == 6
    assert feature(artifact, "dissolve_count") == 0


@pytest.mark.parametrize("name", ["big_buck_bunny_480p_30s.mp4", "bbb_vfr_drop3.mp4"])
def test_a_fade_from_black_is_no_dissolve(real_clip: RealClip, name: str) -> None:
    artifact = cut_detection.run(real_clip(name).inputs())
    (frame,) = events(artifact, "fade_in")
    assert 0.5 < artifact.arrays["event_time_s"][0] < 2.0
    assert frame > 0
    assert events(artifact, "dissolve") == []


@pytest.mark.parametrize(
    ("name", "every"), [("nasa_two_streams.mp4", 1), ("nasa_two_streams.mp4", 4), ("nasa_hdr.mp4", 2)]
)
def test_a_dissolve_out_of_a_dark_picture_is_no_fade(real_clip: RealClip, name: str, every: int) -> None:
    """From 5.0 to 5.95 s one picture at black's luma turns into another."""
    artifact = cut_detection.run(real_clip(name).inputs(every=every))
    assert events(artifact, "fade_in") == []
    (frame,) = events(artifact, "dissolve")
    row = artifact.arrays["event_source_frame"].tolist().index(frame)
    assert artifact.arrays["event_start_time_s"][row] == pytest.approx(5.0, abs=0.15)
    assert artifact.arrays["event_end_time_s"][row] == pytest.approx(5.95, abs=0.15)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (("big_buck_bunny_480p_30s.mp4", 150), ("big_buck_bunny_480p_30s.mp4", 400)),
        (("cars_topdown_30s.mp4", 60), ("hello_face_speech.mp4", 0)),
        (("big_buck_bunny_480p_30s.mp4", 400), ("people_139s.mp4", 500)),
    ],
)
@pytest.mark.parametrize("frames", [24, 36])
def test_a_dissolve_between_moving_scenes(
    real_clip: RealClip, a: tuple[str, int], b: tuple[str, int], frames: int
) -> None:
    first, second = (real_clip(name).frames[start : start + 100] for name, start in (a, b))
    artifact = cut_detection.run(Clip.at_rate(dissolve(first, second, frames), 24).inputs(every=2))
    (frame,) = events(artifact, "dissolve")
    assert frame == pytest.approx(100 - frames / 2, abs=4)
    assert events(artifact, "hard_cut") == []
