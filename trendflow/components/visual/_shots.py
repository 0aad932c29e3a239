"""The partition of a video into shots and the statistics of their durations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trendflow.components.visual._cut_events import Event, EventType
from trendflow.components.visual._cut_score import DenseSignals

HISTOGRAM_EDGES_S = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, np.inf)
ENTROPY_EDGES_S = np.geomspace(0.1, 1200.0, 21)
BOUNDARY_TYPES = (EventType.HARD_CUT, EventType.FADE_IN, EventType.FADE_OUT, EventType.DISSOLVE)


@dataclass(frozen=True)
class Shots:
    """Shots in order; they cover [0, D] without gap or overlap. End frames are exclusive."""

    start_s: np.ndarray  # float64 [S]
    end_s: np.ndarray  # float64 [S]
    start_frame: np.ndarray  # int64 [S]
    end_frame: np.ndarray  # int64 [S]

    def ids_of(self, source_frames: np.ndarray) -> np.ndarray:
        """Shot of each source frame, int32."""
        return (np.searchsorted(self.start_frame, source_frames, side="right") - 1).astype(np.int32)

    @property
    def durations_s(self) -> np.ndarray:
        return self.end_s - self.start_s


def partition(dense: DenseSignals, events: Sequence[Event], duration_s: float) -> Shots:
    """Shots between the hard cuts and the centres of fades and dissolves.

    Method: shots begin at source frame 0 and at event_source_frame of every hard cut, fade and dissolve. A shot ends
    where the next one begins, the last one with the video.
    """
    inner = {event.frame for event in events if event.type in BOUNDARY_TYPES and event.frame > 0}
    starts = np.array([0, *sorted(inner)], dtype=np.int64)
    start_s = dense.t[starts]
    return Shots(
        start_s=start_s,
        end_s=np.append(start_s[1:], duration_s),
        start_frame=starts,
        end_frame=np.append(starts[1:], len(dense)),
    )


def duration_features(durations_s: np.ndarray) -> dict[str, float]:
    """Statistics of shot durations (seconds, `[S]`, S ≥ 1). Standard deviation and cv of one shot are NaN."""
    d = durations_s
    mean = float(d.mean())
    std = float(d.std()) if len(d) > 1 else float("nan")
    features = {
        "shot_duration_mean_s": mean,
        "shot_duration_median_s": float(np.median(d)),
        "shot_duration_min_s": float(d.min()),
        "shot_duration_max_s": float(d.max()),
        "shot_duration_std_s": std,
    }
    features |= {f"shot_duration_p{p}_s": float(np.percentile(d, p)) for p in (10, 25, 75, 90)}
    features["shot_duration_cv"] = std / mean
    features["extremely_short_ratio"] = float(np.mean(d < 0.25))
    features["short_ratio"] = float(np.mean(d < 1.0))
    features["long_ratio"] = float(np.mean(d > 4.0))
    features["very_long_ratio"] = float(np.mean(d > 10.0))
    bins = np.searchsorted(HISTOGRAM_EDGES_S, d, side="right") - 1
    shares = np.bincount(bins, minlength=len(HISTOGRAM_EDGES_S) - 1) / len(d)
    features |= {f"shot_hist_{i}": float(share) for i, share in enumerate(shares)}
    features["shot_duration_entropy"] = _duration_entropy(d)
    return features


def _duration_entropy(durations_s: np.ndarray) -> float:
    """Entropy over 20 logarithmic bins from 0.1 to 1200 s, as a share of its maximum ln 20."""
    bins = np.clip(np.searchsorted(ENTROPY_EDGES_S, durations_s, side="right") - 1, 0, 19)
    shares = np.bincount(bins, minlength=20) / len(durations_s)
    shares = shares[shares > 0]
    return float(-np.sum(shares * np.log(shares)) / np.log(20))
