"""The pieces of cut detection against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trendflow.components.base import FrameSamples
from trendflow.components.visual import cut_detection
from trendflow.components.visual._cut_events import find_flashes, monotone_legs
from trendflow.components.visual._cut_score import DenseSignals, cut_score, neighbourhood_mean
from trendflow.components.visual._sampled_pictures import compare_samples
from trendflow.components.visual._shots import duration_features
from trendflow_tests.components.cuts.clips import ArrayReader, Clip
from trendflow_tests.components.schema_check import schema_problems

unit = st.floats(0, 1, width=32)


def test_score_needs_colour_and_structure() -> None:
    hist = np.array([np.nan, 1.0, 1.0, 0.0, 0.5, 0.49])
    mad = np.array([np.nan, 0.25, 0.0, 0.9, 0.125, 0.9])
    np.testing.assert_allclose(cut_score(hist, mad), [np.nan, 1.0, 0.0, 0.0, 0.5, 0.7])


@settings(max_examples=60)
@given(
    score=hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1)),
    gaps=st.lists(st.sampled_from([0.02, 0.04, 1 / 24, 0.1, 0.125, 0.3]), min_size=40, max_size=40),
)
def test_neighbourhood_mean_is_its_definition(score: np.ndarray, gaps: list[float]) -> None:
    """Pairs within ±0.25 s and at least two on each side, the pair itself left out."""
    t = np.concatenate([[0.0], np.cumsum(gaps)])[: len(score)]
    score[0] = np.nan
    got = neighbourhood_mean(score, t)
    for j in range(1, len(t)):
        others = [i for i in range(1, len(t)) if i != j and (abs(t[i] - t[j]) <= 0.25 + 1e-9 or abs(i - j) <= 2)]
        expected = np.mean(score[others]) if others else 0.0
        assert got[j] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=80)
@given(values=hnp.arrays(np.float64, st.integers(0, 60), elements=unit), tolerance=st.sampled_from([0.02, 0.1]))
def test_legs_are_monotone_up_to_the_tolerance_and_follow_each_other(values: np.ndarray, tolerance: float) -> None:
    legs = monotone_legs(values, tolerance)
    for (_, end), (start, _) in itertools.pairwise(legs):
        assert end == start
    for first, last in legs:
        leg = values[first : last + 1] if values[last] > values[first] else -values[first : last + 1]
        assert leg[-1] - leg[0] > tolerance
        assert (np.maximum.accumulate(leg) - leg).max() <= tolerance + 1e-12
    if legs:
        assert np.ptp(values[: legs[0][0] + 1]) <= tolerance + 1e-12
    else:
        assert len(values) == 0 or np.ptp(values) <= tolerance + 1e-12


def dense_of(luma: np.ndarray, fps: float = 25.0) -> DenseSignals:
    nothing = np.zeros(len(luma))
    return DenseSignals(np.arange(len(luma)) / fps, nothing, luma, nothing, nothing.astype(bool), nothing)


@pytest.mark.parametrize(
    ("luma", "expected"),
    [
        ([0.3, 0.3, 0.6, 0.3, 0.3], [2]),
        ([0.6, 0.6, 0.2, 0.2, 0.6], [2]),
        ([0.3, 0.3, 0.6, 0.34, 0.34], []),  # net change 0.04
        ([0.3, 0.44, 0.3, 0.3, 0.3], []),  # step 0.14
        ([0.3, 0.6, 0.6, 0.6, 0.6, 0.6, 0.3], [1]),  # 0.2 s
        ([0.3, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.3], []),  # 0.24 s
        ([0.3, 0.6, 0.3, 0.6, 0.3], [1, 3]),
        ([0.3, 0.5, 0.7, 0.7], []),  # both steps up
    ],
)
def test_flash_rule(luma: list[float], expected: list[int]) -> None:
    assert [flash.frame for flash in find_flashes(dense_of(np.array(luma)))] == expected


@settings(max_examples=60)
@given(durations=hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(0.02, 1200)))
def test_shot_statistics(durations: np.ndarray) -> None:
    got = duration_features(durations)
    assert sum(got[f"shot_hist_{i}"] for i in range(8)) == pytest.approx(1.0)
    assert got["extremely_short_ratio"] == pytest.approx(got["shot_hist_0"])
    assert got["short_ratio"] == pytest.approx(sum(got[f"shot_hist_{i}"] for i in range(3)))
    assert -1e-12 <= got["shot_duration_entropy"] <= 1 + 1e-12
    assert got["shot_duration_min_s"] <= got["shot_duration_p10_s"] <= got["shot_duration_median_s"]
    assert np.isnan(got["shot_duration_std_s"]) == (len(durations) == 1)


def test_shot_statistics_in_closed_form() -> None:
    """Ten shots of 1 s and ten of 4 s."""
    got = duration_features(np.repeat([1.0, 4.0], 10))
    assert (got["shot_duration_mean_s"], got["shot_duration_std_s"], got["shot_duration_cv"]) == (2.5, 1.5, 0.6)
    assert (got["shot_hist_3"], got["shot_hist_5"]) == (0.5, 0.5)
    assert (got["short_ratio"], got["long_ratio"]) == (0.0, 0.0)
    assert got["shot_duration_entropy"] == pytest.approx(np.log(2) / np.log(20))
    assert got["shot_duration_p25_s"] == 1.0


@settings(max_examples=40)
@given(
    data=st.data(),
    frames=st.integers(2, 60),
    rate=st.sampled_from([1, 5, 24, 60]),
)
def test_any_signals_give_a_partition_of_the_video(data: st.DataObject, frames: int, rate: int) -> None:
    """Random signals, events everywhere: shots stay disjoint, ordered and complete, and the schema holds."""
    clip = Clip.at_rate(np.zeros((frames, 9, 16, 3), np.uint8), rate)
    steps = data.draw(hnp.arrays(np.int64, frames, elements=st.integers(1, 3)))
    pts = np.cumsum(steps) - steps[0]
    signal = hnp.arrays(np.float32, frames, elements=unit)
    dense = {
        "pts_sec": pts / rate,
        "hist_l1": data.draw(signal),
        "lowres_mad": data.draw(signal),
        "luma_mean": data.draw(signal),
        "corrupt_mask": data.draw(hnp.arrays(bool, frames)),
    }
    dense["hist_l1"][0] = dense["lowres_mad"][0] = np.nan
    inputs = clip.inputs(dense=dense)
    artifact = cut_detection.run(inputs)
    assert schema_problems(cut_detection, artifact) == []
    a = artifact.arrays
    assert a["shot_start_time_s"][0] == 0
    assert a["shot_end_time_s"][-1] == inputs.video.duration_sec
    np.testing.assert_array_equal(a["shot_start_time_s"][1:], a["shot_end_time_s"][:-1])
    assert (a["shot_end_time_s"] > a["shot_start_time_s"]).all()
    np.testing.assert_array_equal(a["shot_start_source_frame"][1:], a["shot_end_source_frame"][:-1])
    assert (a["shot_start_source_frame"][0], a["shot_end_source_frame"][-1]) == (0, frames)
    np.testing.assert_array_equal(a["shot_start_time_s"], dense["pts_sec"][a["shot_start_source_frame"]])
    assert (np.diff(a["union_shot_ids"]) >= 0).all()


@settings(max_examples=30)
@given(first=st.integers(0, 255), second=st.integers(0, 255))
def test_ssim_of_uniform_frames_in_closed_form(first: int, second: int) -> None:
    """Without structure SSIM is its luminance term (2ab + C₁)/(a² + b² + C₁)."""
    frames = np.stack([np.full((40, 60, 3), level, np.uint8) for level in (first, second)])
    drops, _ = compare_samples(
        FrameSamples(np.arange(2, dtype=np.int32), np.array([0.0, 1.0]), ArrayReader(frames)), lambda done, total: None
    )
    a, b = first / 255, second / 255
    assert drops[0] == pytest.approx(1 - (2 * a * b + 1e-4) / (a * a + b * b + 1e-4), abs=1e-3)


def test_ssim_drop_orders_damage() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(60, 190, (64, 96, 3)).astype(np.float64)
    noisy = [np.clip(base + rng.normal(0, sigma, base.shape), 0, 255).astype(np.uint8) for sigma in (0, 5, 20, 60)]
    unrelated = rng.integers(60, 190, (64, 96, 3)).astype(np.uint8)
    drops = [
        compare_samples(
            FrameSamples(np.arange(2, dtype=np.int32), np.array([0.0, 1.0]), ArrayReader(np.stack([noisy[0], other]))),
            lambda done, total: None,
        )[0][0]
        for other in (*noisy, unrelated)
    ]
    assert drops[0] == pytest.approx(0, abs=1e-6)
    assert drops == sorted(drops)
    assert drops[-1] > 0.8
