"""Scenes: consecutive shots that show the same place.

A shot's label is the class most of its frames rank first. Neighbouring shots of one label are a scene. A scene that
is too short joins the neighbour whose mean probabilities are nearer, the shortest scene first.

Method: the label of frames is the class that most of them rank first; of equals, the one with the largest mean
probability. Neighbouring shots of one label make a scene; a shot without a sample belongs to the scene before it. While
the shortest scene (the first of equals) lasts less than `min_scene_s`, it is joined with the neighbour at the smaller
Jensen–Shannon distance, the earlier of equals, the two are labelled anew, and neighbours of one label are joined. The
distance of p and q is √(½ Σ p log₂(p/m) + ½ Σ q log₂(q/m)), m = (p + q)/2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scene:
    """Frames first…stop of one place, [start_s, end_s) in seconds."""

    first: int
    stop: int
    start_s: float
    end_s: float
    label: int
    mean: np.ndarray  # float64 [C], mean probabilities of its frames

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s

    @property
    def rows(self) -> slice:
        return slice(self.first, self.stop)


def find_scenes(
    probabilities: np.ndarray, shot_ids: np.ndarray, start_s: np.ndarray, end_s: np.ndarray, min_scene_s: float
) -> list[Scene]:
    """Scenes in order; they cover [start of the first shot, end of the last] without gap or overlap.

    `probabilities` `[N, C]` and non-decreasing `shot_ids` `[N]` are of the frames, N ≥ 1; `start_s`, `end_s` `[S]` of
    the shots. A shot without a frame shows nothing of its own and belongs to the scene before it, at the very
    beginning to the first one.
    """
    scenes = _same_label_joined(_shots(probabilities, shot_ids, start_s, end_s), probabilities)
    while len(scenes) > 1:
        lengths = [scene.length_s for scene in scenes]
        shortest = int(np.argmin(lengths))
        if lengths[shortest] >= min_scene_s:
            break
        left = _nearer_neighbour(scenes, shortest)
        joined = _scene(probabilities, scenes[left], scenes[left + 1])
        scenes = _same_label_joined([*scenes[:left], joined, *scenes[left + 2 :]], probabilities)
    return scenes


def _shots(probabilities: np.ndarray, shot_ids: np.ndarray, start_s: np.ndarray, end_s: np.ndarray) -> list[Scene]:
    seen, first = np.unique(shot_ids, return_index=True)
    bounds = [float(start_s[0]), *start_s[seen[1:]].tolist(), float(end_s[-1])]
    stops = [*first[1:].tolist(), len(shot_ids)]
    return [
        _labelled(probabilities, begin, stop, bounds[i], bounds[i + 1])
        for i, (begin, stop) in enumerate(zip(first.tolist(), stops, strict=True))
    ]


def _labelled(probabilities: np.ndarray, first: int, stop: int, start_s: float, end_s: float) -> Scene:
    rows = probabilities[first:stop].astype(np.float64)
    mean = rows.mean(axis=0)
    votes = np.bincount(rows.argmax(axis=1), minlength=rows.shape[1])
    # Of classes that equally many frames rank first, the one that is likelier on the whole.
    tied = np.flatnonzero(votes == votes.max())
    return Scene(first, stop, start_s, end_s, int(tied[mean[tied].argmax()]), mean)


def _scene(probabilities: np.ndarray, left: Scene, right: Scene) -> Scene:
    return _labelled(probabilities, left.first, right.stop, left.start_s, right.end_s)


def _same_label_joined(scenes: Sequence[Scene], probabilities: np.ndarray) -> list[Scene]:
    joined: list[Scene] = []
    for scene in scenes:
        # A class that leads in two parts leads in both together, so the label stays and one look back is enough.
        if joined and joined[-1].label == scene.label:
            scene = _scene(probabilities, joined.pop(), scene)
        joined.append(scene)
    return joined


def _nearer_neighbour(scenes: Sequence[Scene], i: int) -> int:
    """Position of the left one of the two scenes to join: `i` with its predecessor or with its successor."""
    if i == 0 or i == len(scenes) - 1:
        return max(0, i - 1)
    before = jensen_shannon_distance(scenes[i - 1].mean, scenes[i].mean)
    after = jensen_shannon_distance(scenes[i].mean, scenes[i + 1].mean)
    return i - 1 if before <= after else i


def jensen_shannon_distance(p: np.ndarray, q: np.ndarray) -> float:
    """Square root of the Jensen–Shannon divergence in bits, in [0, 1]: 0 for equal distributions, 1 for disjoint ones.

    Endres and Schindelin, "A new metric for probability distributions" (2003).
    """
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return float(np.sqrt(min(1.0, max(0.0, divergence))))


def _relative_entropy(p: np.ndarray, q: np.ndarray) -> float:
    seen = p > 0
    return float(np.sum(p[seen] * np.log2(p[seen] / q[seen])))
