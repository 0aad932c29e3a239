"""How a scene looks and feels, after the prompt probabilities of core_clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trendflow.components.base import FrameSamples, Upstream
from trendflow.components.visual import _summary
from trendflow.components.visual._own_rows import OwnFrames, provider_rows
from trendflow.components.visual._prompt_classes import ClassProbabilities, class_probabilities, normalised_entropy
from trendflow.components.visual._scene_constants import SCENES
from trendflow.components.visual._scenes import Scene

AESTHETIC, LUXURY, ATMOSPHERE = "scene_aesthetic", "scene_luxury", "scene_atmosphere"
ATMOSPHERES = ("cozy", "scary", "epic", "neutral")
# Scalar of the video → prompt set and class. A neutral atmosphere is what the others leave.
SCALARS = {
    "aesthetic_mean": (AESTHETIC, "high"),
    "luxury_mean": (LUXURY, "high"),
    "cozy_mean": (ATMOSPHERE, "cozy"),
    "scary_mean": (ATMOSPHERE, "scary"),
    "epic_mean": (ATMOSPHERE, "epic"),
}


@dataclass(frozen=True)
class ScenePrompts:
    """Class probabilities of the three prompt sets on the component's own frames; a set may be missing."""

    sets: dict[str, ClassProbabilities]

    @classmethod
    def of(cls, clip: Upstream, samples: FrameSamples) -> ScenePrompts:
        """Raises `artifact_validation_failed` when core_clip lacks one of the frames."""
        rows = provider_rows(OwnFrames.of(samples), clip)
        found = {name: class_probabilities(clip, name) for name in (AESTHETIC, LUXURY, ATMOSPHERE)}
        return cls(
            {
                name: ClassProbabilities(probs.names, probs.values[rows], probs.near_uniform)
                for name, probs in found.items()
                if probs is not None
            }
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        return ("near_uniform_probs",) if any(probs.near_uniform for probs in self.sets.values()) else ()

    def features(self) -> dict[str, float]:
        """Mean class probabilities over frames; NaN without the set or when its prompts tell nothing apart."""
        return {
            name: _summary.mean(self.sets[of].of(label))
            if of in self.sets and not self.sets[of].near_uniform
            else float("nan")
            for name, (of, label) in SCALARS.items()
        }

    def absent(self) -> dict[str, str]:
        """Why a scalar is NaN by configuration."""
        reasons = {}
        for name, (of, _) in SCALARS.items():
            if of not in self.sets:
                reasons[name] = "core_clip has no prompt probabilities"
            elif self.sets[of].near_uniform:
                reasons[name] = "the prompts do not tell the frames apart"
        return reasons

    def scene_arrays(self, scenes: Sequence[Scene]) -> dict[str, np.ndarray]:
        """Arrays `[S]` of the sets that exist."""
        arrays: dict[str, list[float]] = {}
        if AESTHETIC in self.sets:
            parts = [self.sets[AESTHETIC].of("high")[scene.rows] for scene in scenes]
            arrays["mean_aesthetic_score"] = [_summary.mean(part) for part in parts]
            arrays["aesthetic_std"] = [_summary.std(part) for part in parts]
            arrays["aesthetic_frac_high"] = [_summary.mean(part >= SCENES.aesthetic_high) for part in parts]
        if LUXURY in self.sets:
            luxury = self.sets[LUXURY].of("high")
            arrays["mean_luxury_score"] = [_summary.mean(luxury[scene.rows]) for scene in scenes]
        if ATMOSPHERE in self.sets:
            columns = np.stack([self.sets[ATMOSPHERE].of(name) for name in ATMOSPHERES], axis=1)
            means = np.stack([columns[scene.rows].mean(axis=0) for scene in scenes])
            arrays |= {f"mean_{name}": means[:, i].tolist() for i, name in enumerate(ATMOSPHERES)}
            arrays["atmosphere_entropy"] = normalised_entropy(means).tolist()
        return {name: np.array(values, dtype=np.float32) for name, values in arrays.items()}
