"""Track ids and smoothing on movements whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.components.visual._face_tracks import SMOOTHING_REACH, SMOOTHING_SIGMA_S, assign_tracks, smooth_track

LEFT, RIGHT = [0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 60.0, 10.0]


def frames(*rows: list[list[float]]) -> list[np.ndarray]:
    return [np.array(row, dtype=np.float32).reshape(-1, 4) for row in rows]


def ids(*rows: list[list[float]]) -> list[list[int]]:
    return [track.tolist() for track in assign_tracks(frames(*rows))]


def shifted(box: list[float], x: float) -> list[float]:
    return [box[0] + x, box[1], box[2] + x, box[3]]


def test_faces_keep_their_ids_when_their_order_changes() -> None:
    assert ids([LEFT, RIGHT], [RIGHT, LEFT], [shifted(LEFT, 2), shifted(RIGHT, 1)]) == [[0, 1], [1, 0], [0, 1]]


def test_a_gap_or_a_jump_starts_a_new_track() -> None:
    assert ids([LEFT], [], [LEFT]) == [[0], [], [1]]
    assert ids([LEFT], [RIGHT]) == [[0], [1]]


@pytest.mark.parametrize(("shift", "same"), [(5.3, True), (5.5, False)])
def test_the_overlap_limit(shift: float, same: bool) -> None:
    # Two 10 px squares shifted by s overlap by (10 − s)/(10 + s), which is 0.3 at s = 5.385.
    assert ids([LEFT], [shifted(LEFT, shift)]) == [[0], [0 if same else 1]]


def test_the_best_overlap_wins_and_no_id_occurs_twice() -> None:
    assert ids([LEFT], [shifted(LEFT, 3), shifted(LEFT, 1)]) == [[0], [1, 0]]
    assert ids([LEFT, shifted(LEFT, 4)], [shifted(LEFT, 3)]) == [[0, 1], [1]]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(0, 2**32 - 1))
def test_ids_are_unique_in_a_sample_and_numbered_without_holes(counts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = []
    for count in counts:
        low = rng.uniform(0, 20, (count, 2))
        boxes.append(np.concatenate([low, low + rng.uniform(5, 20, (count, 2))], axis=1))
    tracks = assign_tracks(boxes)
    for track, box in zip(tracks, boxes, strict=True):
        assert len(set(track.tolist())) == len(box)
    seen = np.concatenate(tracks)
    assert sorted(set(seen.tolist())) == list(range(seen.max() + 1 if len(seen) else 0))


times = st.lists(st.floats(0.005, 0.3), min_size=1, max_size=30).map(lambda gaps: np.cumsum(gaps))


@given(times, st.floats(-5, 5), st.floats(-2, 2))
def test_a_straight_movement_is_not_changed(times_s: np.ndarray, speed: float, start: float) -> None:
    values = (start + speed * times_s)[:, None, None] * np.ones((1, 4, 3))
    np.testing.assert_allclose(smooth_track(times_s, values), values, atol=1e-8)


@given(st.integers(0, 2**32 - 1), st.integers(2, 20))
def test_sparse_samples_are_left_alone(seed: int, n: int) -> None:
    gap = SMOOTHING_SIGMA_S * SMOOTHING_REACH * 1.01
    values = np.random.default_rng(seed).normal(size=(n, 4, 3))
    np.testing.assert_array_equal(smooth_track(np.arange(n) * gap, values), values)


def test_jitter_of_dense_samples_is_reduced() -> None:
    times_s = np.arange(200) / 30
    noise = np.random.default_rng(1).normal(size=(200, 8, 3))
    smoothed = smooth_track(times_s, noise)
    # Of white noise a Gaussian window of σ = 0.04 s at 30 Hz leaves the share Σw² / (Σw)² of the variance.
    weights = np.exp(-0.5 * (np.arange(-3, 4) / 30 / SMOOTHING_SIGMA_S) ** 2)
    assert smoothed[10:-10].var() == pytest.approx(np.sum(weights**2) / weights.sum() ** 2, rel=0.1)


@given(st.integers(0, 2**32 - 1))
def test_playing_backwards_smooths_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times_s, values = np.cumsum(rng.uniform(0.01, 0.1, 15)), rng.normal(size=(15, 3))
    backwards = smooth_track(times_s[-1] - times_s[::-1], values[::-1])[::-1]
    np.testing.assert_allclose(backwards, smooth_track(times_s, values), atol=1e-9)


def test_unusable_meshes_stay_unusable_and_disturb_nobody() -> None:
    times_s = np.arange(6) / 30
    values = np.random.default_rng(0).normal(size=(6, 4, 3))
    values[2] = np.nan
    smoothed = smooth_track(times_s, values)
    assert np.isnan(smoothed[2]).all()
    rest = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(smoothed[rest], smooth_track(times_s[rest], values[rest]))
