"""Repetition in embedding space, on vectors whose cosines are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.components.visual import uniqueness
from trendflow.components.visual.uniqueness import Pairs, effective_count, longest_run_s
from trendflow_tests.components.structure.scripted import Script, even, features, random_units, turning


@pytest.mark.parametrize("seed", range(3))
def test_a_clip_played_twice_repeats_itself_completely(seed: int) -> None:
    once = random_units(40, seed=seed)
    artifact = Script(even(80, 0.25), np.concatenate([once, once])).run(uniqueness)
    got = features(artifact)
    assert (got["repetition_ratio"], got["near_duplicate_ratio"]) == (1.0, 1.0)
    np.testing.assert_allclose(artifact.arrays["max_sim_to_other"], 1.0, atol=1e-6)


def test_unrelated_frames_repeat_nothing() -> None:
    """Cosines of random unit vectors in 512 dimensions have mean 0 and deviation 1/√512."""
    got = features(Script(even(120, 0.25), random_units(120)).run(uniqueness))
    assert (got["repetition_ratio"], got["near_duplicate_ratio"]) == (0.0, 0.0)
    assert got["mean_pairwise_distance"] == pytest.approx(1.0, abs=0.01)
    assert got["max_sim_p90"] < 6 / np.sqrt(512)
    assert got["longest_similar_run_s"] == 0.0


def test_a_still_picture_is_one_frame() -> None:
    script = Script(even(60, 0.5), np.repeat(random_units(1), 60, axis=0))
    got = features(script.run(uniqueness))
    assert (got["repetition_ratio"], got["near_duplicate_ratio"]) == (1.0, 1.0)
    assert got["mean_pairwise_distance"] == pytest.approx(0.0, abs=1e-12)
    assert got["effective_count_frac"] == pytest.approx(1 / 60)
    assert got["first_last_similarity"] == pytest.approx(1.0)
    assert got["longest_similar_run_s"] == 29.5


def test_every_number_of_four_frames() -> None:
    """Angles 0°, 10°, 60°, 90° at 0, 1, 4 and 8 s: frames 0 and 1 are too close in time to be a pair."""
    degrees = np.array([0.0, 10.0, 60.0, 90.0])
    artifact = Script(np.array([0.0, 1.0, 4.0, 8.0]), turning(np.radians(degrees))).run(uniqueness)
    cos = {angle: np.cos(np.radians(angle)) for angle in (10, 30, 50, 60, 80, 90)}
    highest = [cos[60], cos[50], cos[30], cos[30]]
    np.testing.assert_allclose(artifact.arrays["max_sim_to_other"], highest, atol=1e-6)
    np.testing.assert_allclose(artifact.arrays["cos_dist_next"], [1 - cos[a] for a in (10, 50, 30)], atol=1e-6)
    got = features(artifact)
    assert got["max_sim_mean"] == pytest.approx(np.mean(highest))
    assert got["max_sim_p90"] == pytest.approx(cos[30])
    assert got["mean_pairwise_distance"] == pytest.approx(np.mean([1 - cos[a] for a in (60, 90, 50, 80, 30)]))
    assert got["first_last_similarity"] == pytest.approx(0.0, abs=1e-6)
    assert got["longest_similar_run_s"] == 1.0
    assert got["repetition_ratio"] == 0.0


@pytest.mark.parametrize(("lag_s", "repeated"), [(1.0, 0.0), (1.96, 0.0), (2.0, 2 / 12), (7.0, 2 / 12)])
def test_only_frames_two_seconds_apart_repeat_each_other(lag_s: float, repeated: float) -> None:
    times_s = np.append(even(11, 2.5), 5.0 + lag_s)
    vectors = np.concatenate([np.eye(11), np.eye(11)[2:3]])
    order = np.argsort(times_s)
    got = features(Script(times_s[order], vectors[order]).run(uniqueness))
    assert got["repetition_ratio"] == pytest.approx(repeated)


@pytest.mark.parametrize("gap_s", [1.0, 0.25, 0.1])
def test_dense_sampling_creates_no_repetition(gap_s: float) -> None:
    """A picture that turns by 0.25 rad per second never comes back within 20 s; cos 0.5 rad is 0.878."""
    times_s = np.arange(0, 20, gap_s)
    got = features(Script(times_s, turning(0.25 * times_s)).run(uniqueness))
    assert got["repetition_ratio"] == 0.0
    assert got["max_sim_mean"] == pytest.approx(np.cos(0.5), abs=0.02)


@pytest.mark.parametrize("sizes", [[10], [5, 5], [4, 4, 4, 4], [1] * 12, [9, 1], [6, 3, 2]])
def test_effective_count_of_orthogonal_groups(sizes: list[int]) -> None:
    """k groups of equal frames, orthogonal to each other: the exponential of the entropy of their shares."""
    vectors = np.repeat(np.eye(len(sizes)), sizes, axis=0)
    shares = np.array(sizes) / sum(sizes)
    expected = np.exp(-np.sum(shares * np.log(shares)))
    assert effective_count(vectors @ vectors.T) == pytest.approx(expected)
    got = features(Script(even(len(vectors), 2.0), vectors, duration_s=100.0).run(uniqueness))
    assert got["effective_count_frac"] == pytest.approx(expected / len(vectors), rel=1e-6)


@given(st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_order_does_not_matter_to_pairs(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, times_s = random_units(count, 8, seed), np.cumsum(rng.uniform(0.1, 4.0, count))
    order = rng.permutation(count)
    there = Pairs.of(vectors, times_s)
    shuffled = Pairs.of(vectors[order], times_s[order])
    assert shuffled.features() == pytest.approx(there.features(), rel=1e-9, abs=1e-12, nan_ok=True)
    np.testing.assert_allclose(shuffled.highest, there.highest[order], atol=1e-12)


@settings(max_examples=40)
@given(st.integers(1, 200), st.integers(0, 2**32 - 1), st.floats(0.01, 10.0))
def test_any_clip_gives_shares_in_range(count: int, seed: int, gap_s: float) -> None:
    script = Script(even(count, gap_s), random_units(count, 3, seed))
    artifact = script.run(uniqueness)
    assert (artifact.status == "empty") == ((count - 1) * gap_s < 2.0 - 1e-6)
    got = features(artifact)
    assert not np.isinf(list(got.values())).any()
    if artifact.status == "ok":
        assert np.isfinite(list(got.values())).all()
        assert 1 / count - 1e-6 <= got["effective_count_frac"] <= min(3 / count, 1.0) + 1e-6


def test_a_run_is_measured_from_its_first_to_its_last_frame() -> None:
    times_s = np.array([0.0, 1.0, 1.5, 4.0, 5.0, 5.5])
    assert longest_run_s(np.array([True, True, False, True, True]), times_s) == 1.5
    assert longest_run_s(np.array([False, False, True, False, True]), times_s) == 2.5
    assert longest_run_s(np.ones(5, dtype=bool), times_s) == 5.5
    assert longest_run_s(np.zeros(5, dtype=bool), times_s) == 0.0
    assert longest_run_s(np.empty(0, dtype=bool), times_s[:1]) == 0.0


@pytest.mark.parametrize("count", [1, 2, 7])
def test_frames_within_two_seconds_are_too_few(count: int) -> None:
    artifact = Script(even(count, 0.3), random_units(count)).run(uniqueness)
    assert (artifact.status, artifact.empty_reason) == ("empty", "too_few_frames")
    assert np.isnan(artifact.arrays["feature_values"]).all()
    assert np.isnan(artifact.arrays["max_sim_to_other"]).all()
    assert artifact.arrays["cos_dist_next"].shape == (count - 1,)


def test_a_frame_without_a_pair_is_left_out() -> None:
    """Of frames at 0, 1.5 and 3 s the middle one has no other 2 s away."""
    artifact = Script(np.array([0.0, 1.5, 3.0]), np.eye(3)[[0, 1, 0]]).run(uniqueness)
    np.testing.assert_allclose(artifact.arrays["max_sim_to_other"], [1, np.nan, 1], atol=1e-6)
    assert features(artifact)["repetition_ratio"] == 1.0
