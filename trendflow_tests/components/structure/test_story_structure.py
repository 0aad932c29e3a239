"""The energy curve and the opening, on scripted videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trendflow.components.visual import story_structure
from trendflow.components.visual._story_energy import STORY, StoryConstants, downsampled, energy, peaks, smoothed
from trendflow.contracts import thresholds
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.thresholds import load_thresholds
from trendflow_tests.components.structure.scripted import Script, even, features, random_units, turning

C0, M0 = STORY.change_scale, STORY.motion_scale
FILE = Path(thresholds.__file__).parents[1] / "components" / "thresholds_v1.yaml"


def still(count: int, gap_s: float, **more: Any) -> Script:
    """A picture that never changes."""
    return Script(even(count, gap_s), np.repeat(random_units(1, 1280), count, axis=0), **more)


def bump(times_s: np.ndarray, centre_s: float, height: float, width_s: float = 1.5) -> np.ndarray:
    return np.asarray(height * np.exp(-0.5 * ((times_s - centre_s) / width_s) ** 2))


def test_energy_in_closed_form() -> None:
    """c = C₀(e² − 1) and m = M₀(e⁴ − 1) have energies 2 and 4; together half of each, alone the whole."""
    change = C0 * np.array([np.e**2 - 1, np.e**2 - 1, np.nan, np.nan, 0.0])
    motion = M0 * np.array([np.e**4 - 1, np.nan, np.e**4 - 1, np.nan, 0.0])
    np.testing.assert_allclose(energy(change, motion), [3.0, 2.0, 4.0, np.nan, 0.0], rtol=1e-12)


def test_smoothing_agrees_with_scipy_where_samples_are_even() -> None:
    values = np.random.default_rng(0).random(200)
    ours = smoothed(values, even(200, 0.1), 1.0)
    theirs = scipy.ndimage.gaussian_filter1d(values, sigma=10, truncate=12, mode="constant")
    inner = slice(80, -80)  # elsewhere scipy's filter reaches over the ends
    np.testing.assert_allclose(ours[inner], theirs[inner], rtol=1e-9)


def test_smoothing_keeps_a_constant_under_gaps_and_uneven_samples() -> None:
    values = np.where(np.arange(50) % 7 == 3, np.nan, 2.5)
    times_s = np.cumsum(np.random.default_rng(1).uniform(0.01, 3.0, 50))
    curve = smoothed(values, times_s, 1.0)
    np.testing.assert_allclose(curve, values, rtol=1e-12)


def test_downsampling_is_linear_and_spans_the_video() -> None:
    times_s = np.array([0.0, 1.0, 3.0, 10.0, 12.0])
    curve = np.array([np.nan, 2.0, 6.0, 20.0, 24.0])  # twice the time
    grid = np.linspace(0, 12.7, 128)
    np.testing.assert_allclose(downsampled(curve, times_s, 12.7), np.clip(2 * grid, 2.0, 24.0), atol=1e-12)


def test_peaks_need_prominence() -> None:
    times_s = even(100, 0.5)
    curve = 0.2 + bump(times_s, 10, 1.0) + bump(times_s, 30, 0.3) + bump(times_s, 40, 0.2)
    curve[0] = np.nan
    assert times_s[peaks(curve, 0.25)].tolist() == [10.0, 30.0]
    assert len(peaks(np.full(20, np.nan), 0.25)) == 0


@pytest.mark.parametrize("gap_s", [0.1, 1.0, 10.0])
def test_a_still_video_has_no_energy(gap_s: float) -> None:
    artifact = still(100, gap_s).run(story_structure)
    np.testing.assert_allclose(artifact.arrays["story_energy_curve"][1:], 0, atol=1e-9)
    np.testing.assert_allclose(artifact.arrays["story_energy_curve_downsampled_128"], 0, atol=1e-9)
    got = features(artifact)
    for name in (
        "energy_mean",
        "energy_std",
        "energy_max",
        "climax_energy_diff",
        "energy_slope_per_min",
        "peaks_per_min",
    ):
        assert got[name] == pytest.approx(0, abs=1e-9)
    hook = [value for name, value in got.items() if name.startswith("hook_")]
    if gap_s < 10:
        np.testing.assert_allclose(hook, 0, atol=1e-9)
        assert np.isfinite(list(got.values())).all()
    else:
        assert np.isnan(hook).all()


def test_the_curve_follows_change_and_motion() -> None:
    """Constant turning and constant motion give a constant curve of known height."""
    times_s = even(80, 0.5)
    script = Script(times_s, turning(0.3 * times_s), motion=np.full(80, 0.07))
    expected = 0.5 * np.log1p((1 - np.cos(0.15)) / 0.5 / C0) + 0.5 * np.log1p(0.07 / M0)
    artifact = script.run(story_structure)
    curve, valid = artifact.arrays["story_energy_curve"], artifact.arrays["energy_valid_mask"]
    np.testing.assert_allclose(curve[1:], expected, rtol=1e-4)
    assert valid.tolist() == [False] + [True] * 79
    assert np.isnan(curve[0])
    rate = artifact.arrays["embedding_change_rate_per_sec"]
    np.testing.assert_allclose(rate[1:], (1 - np.cos(0.15)) / 0.5, rtol=1e-4)
    alone = replace(script, reliable=np.zeros(80, dtype=bool)).run(story_structure)
    np.testing.assert_allclose(
        alone.arrays["story_energy_curve"][1:], np.log1p((1 - np.cos(0.15)) / 0.5 / C0), rtol=1e-4
    )


def test_change_is_between_own_samples_and_motion_at_them() -> None:
    """Every third frame of the union is the component's own: change spans 0.6 s, motion is the row of that frame."""
    times_s = even(90, 0.2)
    motion = np.where(np.arange(90) % 3 == 0, 0.1, 50.0)
    artifact = Script(times_s, turning(0.5 * times_s), motion=motion, every=3).run(story_structure)
    assert artifact.arrays["frame_indices"].tolist() == list(range(0, 90, 3))
    change = (1 - np.cos(0.3)) / 0.6
    np.testing.assert_allclose(artifact.arrays["embedding_change_rate_per_sec"][1:], change, rtol=1e-4)
    expected = 0.5 * np.log1p(change / C0) + 0.5 * np.log1p(0.1 / M0)
    np.testing.assert_allclose(artifact.arrays["story_energy_curve"][1:], expected, rtol=1e-4)


@pytest.mark.parametrize("centre_s", [4.0, 11.0, 17.0])
def test_time_reversal_mirrors_the_climax(centre_s: float) -> None:
    times_s = even(81, 0.25)
    motion = bump(times_s, centre_s, 0.5)
    # The pair (i − 1, i) of the video is the pair (N − i, N − i + 1) of its reverse.
    backwards = np.concatenate([[0.0], motion[:0:-1]])
    there = features(still(81, 0.25, motion=motion, duration_s=20.25).run(story_structure))
    back = features(still(81, 0.25, motion=backwards, duration_s=20.25).run(story_structure))
    sample = 0.25 / 20.25
    assert there["climax_time_frac"] == pytest.approx(centre_s / 20.25, abs=sample)
    assert back["climax_time_frac"] == pytest.approx(1 - there["climax_time_frac"], abs=sample)
    assert back["energy_max"] == pytest.approx(there["energy_max"], rel=1e-6)
    assert back["energy_slope_per_min"] == pytest.approx(-there["energy_slope_per_min"], abs=1e-4)


def test_curve_statistics_against_scipy() -> None:
    times_s = even(121, 0.5)
    script = still(121, 0.5, motion=0.02 + bump(times_s, 15, 0.3) + bump(times_s, 45, 0.6), duration_s=60.5)
    artifact = script.run(story_structure)
    got, curve = features(artifact), artifact.arrays["story_energy_curve"][1:].astype(np.float64)
    at = times_s[1:]
    assert got["energy_mean"] == pytest.approx(curve.mean(), rel=1e-6)
    assert got["energy_std"] == pytest.approx(curve.std(), rel=1e-5)
    assert got["energy_slope_per_min"] == pytest.approx(60 * scipy.stats.linregress(at, curve).slope, rel=1e-4)
    assert got["climax_time_frac"] == pytest.approx(45 / 60.5)
    assert got["climax_energy_diff"] == pytest.approx(curve.max() - curve.mean(), rel=1e-5)
    assert artifact.arrays["story_energy_peaks_times_s"].tolist() == [15.0, 45.0]
    assert got["peaks_per_min"] == pytest.approx(2 * 60 / 60.5)
    for third in range(3):
        inside = (at >= third * 60.5 / 3) & (at < (third + 1) * 60.5 / 3)
        assert got[f"energy_third_{third + 1}_mean"] == pytest.approx(curve[inside].mean(), rel=1e-5)


def test_every_number_of_the_opening_by_hand() -> None:
    """A video of 20 s opens for 3 s: the samples at 0 … 3 s, of which the first has no motion."""
    motion = np.array([9, 0.1, 0.2, 0.3, 5, 5, 5] + [0.0] * 14)
    faces = np.isin(np.arange(20), [0, 2, 9, 10, 11, 19])
    script = still(
        20,
        1.0,
        motion=motion[:20],
        faces=faces,
        cuts_s=(1.5, 3.0, 3.5),
        other_events=(("fade_in", 1.0), ("flash", 2.0)),
    )
    got = features(script.run(story_structure))
    assert got["hook_cut_rate"] == pytest.approx(2 / 3)
    assert got["hook_motion_mean"] == pytest.approx(0.2)
    # In float32 0.2 is a little more than 0.2, and so is 0.3 than 0.2.
    assert got["hook_motion_spike_rate"] == pytest.approx(2 / 3)
    assert got["hook_face_present_ratio"] == pytest.approx(2 / 4)
    ratios = [got[f"face_present_ratio_third_{k}"] for k in (1, 2, 3)]
    assert ratios == pytest.approx([2 / 7, 3 / 7, 1 / 6])
    artifact = script.run(story_structure)
    np.testing.assert_array_equal(artifact.arrays["any_face_present"], faces)
    curve = artifact.arrays["story_energy_curve"].astype(np.float64)
    assert got["hook_energy_mean"] == pytest.approx(curve[1:4].mean(), rel=1e-6)
    assert got["hook_energy_diff"] == pytest.approx(curve[1:4].mean() - curve[4:].mean(), rel=1e-5)


@pytest.mark.parametrize(("duration_s", "length_s"), [(10.0, 1.5), (20.0, 3.0), (40.0, 5.0), (300.0, 5.0)])
def test_one_more_cut_in_the_opening(duration_s: float, length_s: float) -> None:
    """Cuts count in (0, h]; each adds 1/h."""
    script = still(121, duration_s / 121, duration_s=duration_s)
    cuts = (0.0, 0.5, 1.0, length_s, length_s + 0.01)
    rates = [features(replace(script, cuts_s=cuts[:n]).run(story_structure))["hook_cut_rate"] for n in range(6)]
    assert rates == pytest.approx([0, 0, 1 / length_s, 2 / length_s, 3 / length_s, 3 / length_s])


def test_motion_and_cuts_are_not_mixed_up() -> None:
    """Bursts of motion in the opening are no cuts."""
    got = features(still(60, 0.5, motion=np.where(np.arange(60) % 2, 2.0, 0.0)).run(story_structure))
    assert got["hook_cut_rate"] == 0.0
    assert got["hook_motion_spike_rate"] > 0


def test_too_few_samples_in_the_opening() -> None:
    artifact = still(20, 3.0, cuts_s=(1.0,)).run(story_structure)
    got, absent = features(artifact), artifact.meta["absent_features"]
    assert set(absent) == set(story_structure.HOOK_FEATURES)
    assert np.isnan([got[name] for name in absent]).all()
    assert artifact.status == "ok"
    assert np.isfinite([value for name, value in got.items() if name not in absent]).all()


def test_an_opening_without_reliable_motion_has_no_spikes_to_count() -> None:
    script = still(60, 0.5, motion=np.full(60, 0.5), reliable=np.arange(60) > 20)
    artifact = script.run(story_structure)
    got = features(artifact)
    assert set(artifact.meta["absent_features"]) == {"hook_motion_mean", "hook_motion_spike_rate"}
    assert np.isnan([got["hook_motion_mean"], got["hook_motion_spike_rate"]]).all()
    assert got["hook_energy_mean"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_fewer_than_eight_samples_are_too_few(count: int) -> None:
    artifact = still(count, 1.0, duration_s=8.0).run(story_structure)
    if count == 8:
        assert artifact.status == "ok"
        return
    assert (artifact.status, artifact.empty_reason) == ("empty", "too_few_frames")
    for name in ("feature_values", "story_energy_curve", "story_energy_curve_downsampled_128"):
        assert np.isnan(artifact.arrays[name]).all()
    assert not artifact.arrays["energy_valid_mask"].any()
    assert len(artifact.arrays["story_energy_peaks_times_s"]) == 0


def test_it_looks_at_no_frame() -> None:
    assert story_structure.SPEC.reads == ()
    assert still(20, 1.0).inputs(story_structure).samples is None


@given(st.integers(8, 200), st.floats(5.0, 1200.0), st.integers(0, 2**32 - 1))
def test_no_value_exceeds_a_hundred(count: int, duration_s: float, seed: int) -> None:
    """Whatever the embeddings and however fast the motion."""
    rng = np.random.default_rng(seed)
    gaps = rng.uniform(0.5, 1.5, count)
    times_s = (np.cumsum(gaps) - gaps[0]) / gaps.sum() * duration_s
    script = Script(
        times_s,
        random_units(count, 2, seed),
        duration_s=duration_s,
        motion=rng.exponential(rng.choice([0.01, 1.0, 20.0]), count),
        reliable=rng.random(count) < 0.8,
        faces=rng.random(count) < 0.5,
        cuts_s=tuple(np.unique(np.round(rng.uniform(0.2, duration_s - 0.2, 10), 1))),
    )
    artifact = script.run(story_structure)
    got, absent = features(artifact), artifact.meta["absent_features"]
    for name, value in got.items():
        assert np.isfinite(value) != (name in absent), name
        assert name in absent or abs(value) <= 100, name
    assert (artifact.arrays["story_energy_curve"][artifact.arrays["energy_valid_mask"]] >= 0).all()


@pytest.mark.parametrize("forwards", [True, False])
def test_the_steepest_short_video_stays_below_a_hundred(forwards: bool) -> None:
    """Five seconds, of which one half stands still and in the other everything changes and two frame lengths pass."""
    still_half, wild_half = np.zeros(30, dtype=np.int64), np.arange(30)
    order = np.concatenate([still_half, wild_half] if forwards else [wild_half, still_half + 29])
    motion = np.where(np.arange(60) >= 30, 2.0, 0.0)
    script = Script(even(60, 1 / 12), np.eye(30)[order], motion=motion if forwards else motion[::-1])
    got = features(script.run(story_structure))
    assert abs(got["energy_slope_per_min"]) > 50
    assert max(abs(value) for value in got.values()) <= 100


@pytest.mark.parametrize("constant", ["change_scale", "motion_scale"])
@pytest.mark.parametrize("value", [None, 0.0, -1.0])
def test_scales_must_be_in_the_constants(constant: str, value: float | None, tmp_path: Path) -> None:
    document = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    if value is None:
        del document["story_structure"][constant]
    else:
        document["story_structure"][constant]["value"] = value
    path = tmp_path / "thresholds_v1.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(TrendFlowError) as caught:
        load_thresholds(path).bind("story_structure", StoryConstants)
    assert caught.value.error_code == "config_invalid"
