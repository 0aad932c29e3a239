"""The constants of scene classification, by name. Values and their provenance stand in the thresholds file."""

from __future__ import annotations

from dataclasses import dataclass

from trendflow.contracts.thresholds import THRESHOLDS


@dataclass(frozen=True)
class SceneConstants:
    """Lengths in seconds, the rest probabilities."""

    min_scene_s: float
    high_confidence: float
    aesthetic_high: float


SCENES = THRESHOLDS.bind("scene_classification", SceneConstants)
