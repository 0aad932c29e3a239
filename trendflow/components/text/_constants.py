"""Constants of the text component."""

from __future__ import annotations

from dataclasses import dataclass

from trendflow.contracts.thresholds import THRESHOLDS


@dataclass(frozen=True)
class TextConstants:
    diversity_window: int
    min_timed_s: float


TEXT = THRESHOLDS.bind("text_processor", TextConstants)
