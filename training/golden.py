"""Golden sets: a fixed choice of videos that no model is ever trained on.

The order is sha256 of `1337::<video_id>`, so a set depends on the ids alone and a grown dataset keeps most of it.
The mini set for regression tests is looked at often; it is disjoint from the hold-out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.config import GoldenConfig
from training.files import write_atomically
from trendflow.contracts.canonical import canonical_json, sha256_hex
from trendflow.contracts.errors import TrendFlowError

_SALT = "1337"


@dataclass(frozen=True)
class GoldenSets:
    """Positions of rows."""

    holdout: np.ndarray
    regression_mini: np.ndarray

    def rows(self, size: int) -> np.ndarray:
        """bool [size]: rows of either set."""
        chosen = np.zeros(size, dtype=bool)
        chosen[self.holdout] = True
        chosen[self.regression_mini] = True
        return chosen


def golden_sets(video_ids: np.ndarray, config: GoldenConfig) -> GoldenSets:
    """The first ids of the order are the hold-out, the next ones the mini set.

    Both together take at most `max_share` of the rows, in proportion: a small dataset would vanish in them otherwise.
    """
    order = np.argsort([sha256_hex(f"{_SALT}::{video}".encode()) for video in video_ids], kind="stable")
    wanted = config.holdout + config.regression_mini
    scale = min(1.0, config.max_share * len(video_ids) / wanted) if wanted else 0.0
    holdout, mini = int(config.holdout * scale), int(config.regression_mini * scale)
    return GoldenSets(order[:holdout], order[holdout : holdout + mini])


def store_golden_sets(folder: Path, fingerprint: str, video_ids: np.ndarray, sets: GoldenSets) -> Path:
    """Write `<folder>/<fingerprint>.json`, or check that what lies there says the same.

    Raises `artifact_validation_failed` when the stored sets of this fingerprint differ: results before and after
    would not be comparable.
    """
    document = {
        "dataset_fingerprint": fingerprint,
        "order": f"sha256({_SALT}::video_id)",
        "holdout": [str(video) for video in video_ids[sets.holdout]],
        "regression_mini": [str(video) for video in video_ids[sets.regression_mini]],
    }
    data = canonical_json(document) + b"\n"
    path = folder / f"{fingerprint}.json"
    if path.exists():
        if path.read_bytes() != data:
            raise TrendFlowError("artifact_validation_failed", "Other golden sets are stored for this dataset.")
    else:
        write_atomically(path, data)
    return path
