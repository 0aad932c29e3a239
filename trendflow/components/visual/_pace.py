"""The rhythm of editing along a video: densities of hard cuts and durations of shots by their place in it.

What the shots are like as a whole stands in cut detection.
"""

from __future__ import annotations

import numpy as np

from trendflow.components.visual import _summary
from trendflow.components.visual._time_course import part_of, slope

EIGHTHS = 8
MIN_SHOTS_FOR_SLOPE = 3


def cut_density(cut_times_s: np.ndarray, duration_s: float) -> np.ndarray:
    """Hard cuts per second in the eighths of [0, D], float64 `[8]`."""
    counts = np.bincount(part_of(cut_times_s, duration_s, EIGHTHS), minlength=EIGHTHS)
    return np.asarray(counts / (duration_s / EIGHTHS))


def most_cuts_within(cut_times_s: np.ndarray, window_s: float) -> int:
    """Most cuts in any window [t, t + window); the fullest windows begin at a cut. Times must not fall."""
    ends = np.searchsorted(cut_times_s, cut_times_s + window_s, side="left")
    return int((ends - np.arange(len(cut_times_s))).max(initial=0))


def shot_features(
    start_s: np.ndarray, end_s: np.ndarray, duration_s: float, intro_share: float, outro_share: float
) -> dict[str, float]:
    """How shot durations change along the video. A shot belongs where its midpoint lies.

    `start_s`, `end_s`: float64 `[S]`, every shot longer than zero. Logarithms of durations, so that halving and
    doubling weigh the same. What a video has too few shots for is NaN.
    """
    durations_s = end_s - start_s
    logs = np.log(durations_s)
    place = (start_s + end_s) / 2 / duration_s
    third = part_of(place, 1.0, 3)
    intro, outro = place <= intro_share, place >= 1 - outro_share
    return {
        "pace_slope": slope(place, logs) if len(logs) >= MIN_SHOTS_FOR_SLOPE else float("nan"),
        "pace_early_late_diff": _summary.mean(logs[third == 2]) - _summary.mean(logs[third == 0]),
        "intro_shot_duration_median_s": _summary.median(durations_s[intro]),
        "main_shot_duration_median_s": _summary.median(durations_s[~intro & ~outro]),
        "outro_shot_duration_median_s": _summary.median(durations_s[outro]),
    }
