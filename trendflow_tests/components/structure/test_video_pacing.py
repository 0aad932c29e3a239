"""Rates of change and the rhythm of cutting, on scripted videos."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.components.visual import video_pacing
from trendflow.components.visual._colour import lab_rasters, mean_delta_e, srgb_to_lab
from trendflow.components.visual._pace import cut_density, most_cuts_within
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.errors import TrendFlowError
from trendflow.models.batching import BatchRunner
from trendflow_tests.components.structure.scripted import Script, even, features, random_units, turning

# L*a*b* of the sRGB primaries for D65, as colour tables print them.
TABLE = {
    (255, 0, 0): (53.24, 80.09, 67.20),
    (0, 255, 0): (87.73, -86.18, 83.18),
    (0, 0, 255): (32.30, 79.19, -107.86),
    (255, 255, 255): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (119, 119, 119): (50.03, 0.0, 0.0),
}

CUTS = Script(
    even(40, 1.0),
    np.repeat(random_units(1), 40, axis=0),
    cuts_s=(5.0, 10.0, 20.0, 22.0, 24.0),
    other_events=(("flash", 3.0), ("fade_in", 20.5), ("dissolve", 30.0), ("zoom", 31.0)),
)


def solid(colours: list[tuple[int, int, int]], height: int = 36, width: int = 64) -> np.ndarray:
    """One frame per colour, uint8 `[n, height, width, 3]`."""
    return np.array(colours, dtype=np.uint8)[:, None, None, :].repeat(height, axis=1).repeat(width, axis=2)


@pytest.mark.parametrize("colour", TABLE)
def test_lab_of_known_colours(colour: tuple[int, int, int]) -> None:
    np.testing.assert_allclose(srgb_to_lab(np.array(colour) / 255), TABLE[colour], atol=0.02)


def test_lab_agrees_with_opencv() -> None:
    """OpenCV interpolates in a table, which is coarser than the formula."""
    rgb = np.random.default_rng(0).random((40, 50, 3)).astype(np.float32)
    ours, theirs = srgb_to_lab(rgb), cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab)
    np.testing.assert_allclose(ours, theirs, atol=0.7)
    assert np.abs(ours - theirs).mean() < 0.1


def test_colour_difference_of_known_colours() -> None:
    red, blue, white, black = (255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
    lab = lab_rasters(solid([red, blue, white, black, black], height=50, width=90))
    expected = [np.linalg.norm(np.subtract(TABLE[a], TABLE[b])) for a, b in ((red, blue), (blue, white))]
    np.testing.assert_allclose(mean_delta_e(lab), [*expected, 100.0, 0.0], atol=0.05)


@pytest.mark.parametrize("size", [(36, 64), (320, 568), (568, 320), (20, 30)])
def test_difference_is_averaged_over_the_picture(size: tuple[int, int]) -> None:
    """A quarter of the picture turns from black to white: L* changes by 100 there."""
    frames = solid([(0, 0, 0), (0, 0, 0)], *size)
    frames[1, : size[0] // 2, : size[1] // 2] = 255
    assert mean_delta_e(lab_rasters(frames))[0] == pytest.approx(25.0, abs=0.5)


def test_small_pictures_are_not_rounded() -> None:
    """Noise of one grey level averages out over about 79 pixels; rounding to whole levels would keep it."""
    rng = np.random.default_rng(1)
    frames = (100 + rng.integers(0, 2, (2, 320, 568, 1))).astype(np.uint8).repeat(3, axis=3)
    assert mean_delta_e(lab_rasters(frames))[0] < 0.05


def test_every_cut_statistic_by_hand() -> None:
    """Shots of 5, 5, 10, 2, 2 and 16 s with midpoints at 2.5, 7.5, 15, 21, 23 and 32 of 40 s."""
    artifact = CUTS.run(video_pacing)
    np.testing.assert_allclose(artifact.arrays["cut_density_8"], np.array([0, 1, 1, 0, 3, 0, 0, 0]) / 5, rtol=1e-6)
    got = features(artifact)
    assert got["cut_density_std"] == pytest.approx(np.std([0, 0.2, 0.2, 0, 0.6, 0, 0, 0]))
    assert got["cuts_per_10s_max"] == 3
    assert got["intro_shot_duration_median_s"] == pytest.approx(5)
    assert got["main_shot_duration_median_s"] == pytest.approx(5)  # of 5, 10, 2, 2, 16
    assert np.isnan(got["outro_shot_duration_median_s"])
    assert got["pace_early_late_diff"] == pytest.approx(np.log(16) - np.log(5))
    line = scipy.stats.linregress(np.array([2.5, 7.5, 15, 21, 23, 32]) / 40, np.log([5, 5, 10, 2, 2, 16]))
    assert got["pace_slope"] == pytest.approx(line.slope, rel=1e-6)
    assert set(artifact.meta["absent_features"]) == {"outro_shot_duration_median_s"}


def test_a_video_that_cuts_ever_faster() -> None:
    """Shots of 16, 8, 4, 2 and 2 s: one midpoint in the first third, three in the last."""
    got = features(Script(even(32, 1.0), CUTS.vectors[:32], cuts_s=(16.0, 24.0, 28.0, 30.0)).run(video_pacing))
    assert got["pace_early_late_diff"] == pytest.approx(np.log([4, 2, 2]).mean() - np.log(16))
    assert got["pace_slope"] < -2.0
    assert got["outro_shot_duration_median_s"] == 2.0


@pytest.mark.parametrize(
    ("cuts", "most"),
    [((), 0), ((3.0,), 1), ((0.0, 10.0), 1), ((0.5, 10.4), 2), ((1, 2, 9, 12, 13), 3), ((1, 9, 10, 11, 18.9), 4)],
)
def test_most_cuts_in_ten_seconds(cuts: tuple[float, ...], most: int) -> None:
    assert most_cuts_within(np.array(cuts, dtype=np.float64), 10.0) == most


@given(st.lists(st.floats(0.0, 1.0), max_size=60), st.floats(5.0, 1200.0))
def test_densities_sum_to_the_number_of_cuts(places: list[float], duration_s: float) -> None:
    density = cut_density(np.sort(np.array(places, dtype=np.float64)) * duration_s, duration_s)
    assert (density * duration_s / 8).sum() == pytest.approx(len(places))


def test_one_shot_has_no_pace() -> None:
    artifact = replace(CUTS, cuts_s=(), other_events=()).run(video_pacing)
    got = features(artifact)
    assert np.isnan([got["pace_slope"], got["pace_early_late_diff"]]).all()
    assert (got["cuts_per_10s_max"], got["cut_density_std"]) == (0.0, 0.0)
    assert (artifact.arrays["cut_density_8"] == 0).all()
    assert got["main_shot_duration_median_s"] == pytest.approx(40)
    assert "pace_slope" in artifact.meta["absent_features"]


@pytest.mark.parametrize("gap_s", [0.2, 0.5, 1.0])
def test_semantic_rates_in_closed_form(gap_s: float) -> None:
    """A picture that turns by 0.4 rad/s."""
    times_s = even(40, gap_s)
    artifact = Script(times_s, turning(0.4 * times_s)).run(video_pacing)
    rate = (1 - np.cos(0.4 * gap_s)) / gap_s
    np.testing.assert_allclose(artifact.arrays["semantic_change_rate_per_sec"], [np.nan, *[rate] * 39], rtol=1e-4)
    got = features(artifact)
    assert got["semantic_change_rate_mean"] == pytest.approx(rate, rel=1e-4)
    assert got["semantic_change_rate_p90"] == pytest.approx(rate, rel=1e-4)
    assert got["semantic_change_rate_std"] == pytest.approx(0, abs=1e-5)
    assert got["pair_dt_median_s"] == pytest.approx(gap_s)


def test_change_over_one_second_does_not_depend_on_the_sampling() -> None:
    measured = []
    for gap_s in (0.05, 0.1, 0.25, 0.5, 1.0):
        times_s = np.arange(0, 20, gap_s)
        measured.append(features(Script(times_s, turning(0.4 * times_s)).run(video_pacing))["semantic_change_1s_mean"])
    assert measured[-1] == pytest.approx(1 - np.cos(0.4), rel=1e-4)
    np.testing.assert_allclose(measured, measured[-1], rtol=0.05)


@pytest.mark.parametrize(
    ("gap_s", "measured"), [(0.74, False), (0.75, True), (1.25, True), (1.26, False), (10.0, False)]
)
def test_change_over_one_second_needs_such_pairs(gap_s: float, measured: bool) -> None:
    artifact = Script(even(20, gap_s), random_units(20)).run(video_pacing)
    assert np.isfinite(features(artifact)["semantic_change_1s_mean"]) == measured
    assert ("semantic_change_1s_mean" in artifact.meta["absent_features"]) != measured


def test_a_share_responds_to_absolute_change() -> None:
    """Half the steps turn by 0.7 rad in 0.5 s (0.47/s); slowed down to 1 s they stay below 0.3/s."""
    angles = np.cumsum(np.tile([0.0, 0.7], 20))
    fast, slow = (features(Script(even(40, gap_s), turning(angles)).run(video_pacing)) for gap_s in (0.5, 1.0))
    assert fast["high_semantic_change_ratio"] == pytest.approx(20 / 39)
    assert slow["high_semantic_change_ratio"] == 0.0


def test_double_speed_doubles_rates() -> None:
    rng = np.random.default_rng(3)
    frames = rng.integers(0, 256, (60, 36, 64, 3)).astype(np.uint8)
    luma = np.where(np.arange(750) % 40 < 20, 0.3, 0.7).astype(np.float32)
    script = Script(
        even(60, 0.5),
        random_units(60, 16),
        motion=rng.random(60),
        frames=frames,
        cuts_s=(3.0, 4.0, 11.0, 25.0),
        dense={"luma_mean": luma},
    )
    fast = replace(
        script,
        times_s=script.times_s / 2,
        motion=2 * script.motion,
        cuts_s=tuple(np.array(script.cuts_s) / 2),
        dense_fps=50.0,
    )
    slow_artifact, fast_artifact = script.run(video_pacing), fast.run(video_pacing)
    slow, quick = features(slow_artifact), features(fast_artifact)
    rates = [name for name in slow if "_rate_" in name or name.startswith(("motion", "luma", "cut_density"))]
    assert len(rates) == 11
    assert [quick[name] / slow[name] for name in rates] == pytest.approx([2.0] * len(rates), rel=1e-5)
    np.testing.assert_allclose(
        fast_artifact.arrays["cut_density_8"], 2 * slow_artifact.arrays["cut_density_8"], rtol=1e-6
    )
    for same in ("pace_slope", "pace_early_late_diff"):
        assert quick[same] == pytest.approx(slow[same], rel=1e-5)
    assert quick["main_shot_duration_median_s"] == pytest.approx(slow["main_shot_duration_median_s"] / 2)


def test_motion_of_reliable_pairs_by_thirds() -> None:
    """Thirds of 12 s; the pair that ends at 4 s lies before the border, an unreliable pair tells nothing."""
    motion = np.array([9, 1, 1, 1, 1, 2, 2, 2, 9, 3, 3, 3], dtype=np.float64)
    reliable = np.arange(12) != 8
    script = Script(even(12, 1.0), random_units(12, 4), motion=motion, reliable=reliable)
    got = features(script.run(video_pacing))
    assert [got[f"motion_third_{k}_mean"] for k in (1, 2, 3)] == [1.0, 2.0, 3.0]
    artifact = replace(script, reliable=np.arange(12) < 5).run(video_pacing)
    assert np.isnan([features(artifact)[f"motion_third_{k}_mean"] for k in (2, 3)]).all()
    assert {"motion_third_2_mean", "motion_third_3_mean"} <= set(artifact.meta["absent_features"])


def spikes(luma: np.ndarray, cuts: tuple[float, ...] = (), corrupt: tuple[int, ...] = ()) -> float:
    """Spikes per minute of a video of 30 s with this luma, 10 values per second."""
    damaged = np.isin(np.arange(len(luma)), corrupt)
    dense = {"luma_mean": luma.astype(np.float32), "corrupt_mask": damaged}
    script = Script(even(30, 1.0), random_units(30, 4), dense=dense, dense_fps=10.0, cuts_s=cuts)
    return features(script.run(video_pacing))["luma_spikes_per_min"]


def test_luma_spikes_are_steps_that_no_cut_explains() -> None:
    flat = np.full(300, 0.4)
    stepped = np.where(np.arange(300) >= 100, 0.55, 0.4)
    flash = np.where(np.arange(300) == 200, 0.8, 0.4)
    assert spikes(flat) == 0
    assert spikes(stepped) == 2
    assert spikes(flash) == 4
    assert spikes(np.linspace(0, 1, 300)) == 0
    assert spikes(np.where(np.arange(300) >= 100, 0.49, 0.4)) == 0
    assert spikes(stepped, cuts=(10.0,)) == 0
    assert spikes(stepped, cuts=(10.1,)) == 0
    assert spikes(stepped, cuts=(10.3,)) == 2
    assert spikes(stepped, corrupt=(100,)) == 0
    assert spikes(flash, corrupt=(200,)) == 0


def test_a_cut_outside_the_dense_signals_is_refused() -> None:
    with pytest.raises(TrendFlowError) as caught:
        spikes(np.full(250, 0.4), cuts=(27.0,))
    assert caught.value.error_code == "artifact_validation_failed"


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_a_still_picture_has_no_pace(grey: int) -> None:
    script = Script(
        even(30, 0.5), np.repeat(random_units(1, 1280), 30, axis=0), frames=np.full((30, 40, 60, 3), grey, np.uint8)
    )
    got = features(script.run(video_pacing))
    for name in (
        "semantic_change_rate_mean",
        "semantic_change_rate_p90",
        "color_change_rate_mean",
        "color_change_rate_std",
        "semantic_change_1s_mean",
        "high_semantic_change_ratio",
        "luma_spikes_per_min",
    ):
        assert got[name] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_fewer_than_eight_samples_are_too_few(count: int) -> None:
    artifact = Script(even(count, 1.0), random_units(count), duration_s=9.0, cuts_s=(2.0,)).run(video_pacing)
    values = artifact.arrays["feature_values"]
    if count == 8:
        assert artifact.status == "ok"
        return
    assert (artifact.status, artifact.empty_reason) == ("empty", "too_few_frames")
    for array in (values, artifact.arrays["cut_density_8"], artifact.arrays["color_change_rate_per_sec"]):
        assert np.isnan(array).all()


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_batches_do_not_matter(batch_size: int) -> None:
    frames = np.random.default_rng(5).integers(0, 256, (50, 40, 70, 3)).astype(np.uint8)
    script = Script(even(50, 0.5), random_units(50, 8), frames=frames, every=2)
    ours = video_pacing.run(script.inputs(video_pacing, runner=BatchRunner(batch_size=batch_size)))
    expected: Artifact = script.run(video_pacing)
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(ours.arrays[name], array, err_msg=name)


@settings(max_examples=40)
@given(st.integers(8, 60), st.floats(0.02, 10.0), st.integers(0, 2**32 - 1))
def test_any_video_gives_finite_rates(count: int, gap_s: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    times_s = np.cumsum(rng.uniform(0.5, 1.5, count)) * gap_s
    times_s -= times_s[0]
    end_s = float(times_s[-1] + gap_s)
    cuts = tuple(np.unique(rng.uniform(0.01, 0.99, rng.integers(0, 12)) * end_s))
    rows = max(2, round(end_s * 25))
    script = Script(
        times_s,
        random_units(count, 3, seed),
        duration_s=end_s,
        cuts_s=cuts,
        frames=rng.integers(0, 256, (count, 9, 16, 3)).astype(np.uint8),
        dense={"luma_mean": rng.random(rows).astype(np.float32), "corrupt_mask": rng.random(rows) < 0.1},
        dense_fps=(rows - 1) / end_s,
    )
    artifact = script.run(video_pacing)
    got = features(artifact)
    absent = artifact.meta["absent_features"]
    for name, value in got.items():
        assert np.isfinite(value) != (name in absent), name
    assert artifact.arrays["cut_density_8"].sum() * end_s / 8 == pytest.approx(len(cuts), rel=1e-5)
