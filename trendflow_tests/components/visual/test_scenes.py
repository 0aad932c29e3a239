"""Scenes from scripted probabilities, with the merges worked out by hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import distance

from trendflow.components.visual._scenes import Scene, find_scenes, jensen_shannon_distance

KITCHEN, STREET, BEACH = range(3)
# Rows of probabilities; the street is nearer to the beach than to the kitchen.
ROW = {
    "k": (0.8, 0.1, 0.1),
    "s": (0.1, 0.5, 0.4),
    "b": (0.05, 0.3, 0.65),
}


def scenes_of(script: Sequence[tuple[str, float]], min_scene_s: float = 2.0) -> list[Scene]:
    """`script` lists shots: the frames by letter, and the length in seconds."""
    frames = [ROW[letter] for letters, _ in script for letter in letters]
    shot_ids = [i for i, (letters, _) in enumerate(script) for _ in letters]
    ends = np.cumsum([length for _, length in script])
    return find_scenes(np.array(frames), np.array(shot_ids), np.append(0.0, ends[:-1]), ends, min_scene_s)


def summary(scenes: Sequence[Scene]) -> list[tuple[int, float, float]]:
    return [(scene.label, round(scene.start_s, 9), round(scene.end_s, 9)) for scene in scenes]


def test_neighbouring_shots_of_one_label_are_a_scene() -> None:
    assert summary(scenes_of([("kk", 2), ("kkk", 3), ("ss", 4), ("s", 2)])) == [(KITCHEN, 0, 5), (STREET, 5, 11)]


def test_the_label_is_what_most_frames_show() -> None:
    assert summary(scenes_of([("ksk", 4)])) == [(KITCHEN, 0, 4)]
    # One frame each: the mean of .8 and .1 for the kitchen beats that of .1 and .5 for the street.
    assert summary(scenes_of([("sk", 4)])) == [(KITCHEN, 0, 4)]


def test_a_short_scene_joins_the_more_similar_neighbour() -> None:
    """A street of 1 s between a kitchen and a beach joins the beach, on whichever side it is."""
    assert summary(scenes_of([("kkk", 3), ("s", 1), ("bbb", 4)])) == [(KITCHEN, 0, 3), (BEACH, 3, 8)]
    assert summary(scenes_of([("bbb", 4), ("s", 1), ("kkk", 3)])) == [(BEACH, 0, 5), (KITCHEN, 5, 8)]


def test_scenes_around_an_insert_become_one() -> None:
    """The insert joins the earlier beach, whose label then equals that of the later one."""
    assert summary(scenes_of([("bbb", 3), ("s", 1), ("bb", 3)])) == [(BEACH, 0, 7)]


def test_the_shortest_scene_goes_first() -> None:
    """k 0.5 | s 1 | b 3: the kitchen has only the street to join; the label of both is the kitchen (tie of votes,
    mean .45 against .3), 1.5 s is still too short, and the beach takes it.
    """
    assert summary(scenes_of([("k", 0.5), ("s", 1), ("bbb", 3)])) == [(BEACH, 0, 4.5)]


def test_exactly_long_enough_stays() -> None:
    assert summary(scenes_of([("k", 2), ("s", 2)])) == [(KITCHEN, 0, 2), (STREET, 2, 4)]


def test_a_short_video_is_one_scene() -> None:
    """The beach joins the street, the kitchen joins both; with one vote each the means .32, .30 and .38 decide."""
    assert summary(scenes_of([("k", 0.5), ("s", 0.4), ("b", 0.3)])) == [(BEACH, 0, 1.2)]


def test_shots_without_a_frame_belong_to_the_scene_before() -> None:
    assert summary(scenes_of([("", 1), ("kk", 3), ("", 1), ("ss", 3), ("", 2)])) == [(KITCHEN, 0, 5), (STREET, 5, 10)]


def test_the_mean_is_over_frames_not_over_shots() -> None:
    (scene,) = scenes_of([("k", 1), ("kkk", 1)])
    np.testing.assert_allclose(scene.mean, ROW["k"])
    (mixed,) = scenes_of([("kkks", 5)])
    np.testing.assert_allclose(mixed.mean, (3 * np.array(ROW["k"]) + ROW["s"]) / 4)


shots = st.lists(st.tuples(st.text("ksb", max_size=4), st.floats(0.125, 8, width=16)), min_size=1, max_size=12)


@given(shots.filter(lambda script: any(letters for letters, _ in script)))
def test_scenes_partition_frames_and_time(script: list[tuple[str, float]]) -> None:
    scenes = scenes_of(script)
    assert (scenes[0].start_s, scenes[-1].end_s) == (0, sum(length for _, length in script))
    assert (scenes[0].first, scenes[-1].stop) == (0, sum(len(letters) for letters, _ in script))
    for before, after in itertools.pairwise(scenes):
        assert (before.end_s, before.stop) == (after.start_s, after.first)
        assert before.label != after.label
    assert len(scenes) == 1 or min(scene.length_s for scene in scenes) >= 2


@pytest.mark.parametrize("seed", range(5))
def test_distance_agrees_with_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.full(365, 0.1), size=2)
    assert jensen_shannon_distance(p, q) == pytest.approx(distance.jensenshannon(p, q, base=2), rel=1e-9)


def test_distance_of_equal_and_of_disjoint_distributions() -> None:
    p = np.array([0.5, 0.5, 0.0, 0.0])
    assert jensen_shannon_distance(p, p) == 0
    assert jensen_shannon_distance(p, p[::-1]) == 1
