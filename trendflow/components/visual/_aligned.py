"""Checks that what a component reads upstream speaks of the same frames and the same coordinates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trendflow.components.base import FrameSamples, Upstream
from trendflow.contracts.errors import TrendFlowError

NORM_XY = "norm_xy"


def require_same_frames(upstream: Upstream, samples: FrameSamples) -> None:
    """Raises `artifact_validation_failed` unless row i of `upstream` belongs to sample i."""
    if not np.array_equal(upstream.arrays["frame_indices"], samples.frame_indices):
        raise TrendFlowError(
            "artifact_validation_failed", f"{upstream.name} measured other frames.", upstream=upstream.name
        )


def require_norm_xy(upstream: Upstream, key: str) -> None:
    """Raises `artifact_validation_failed` unless `upstream` declares `key` as fractions of the frame."""
    space = upstream.meta.get("coord_space")
    if (space.get(key) if isinstance(space, Mapping) else space) != NORM_XY:
        raise TrendFlowError(
            "artifact_validation_failed", f"{upstream.name} does not give {key} in norm_xy.", upstream=upstream.name
        )


def shots_of(cuts: Upstream, samples: FrameSamples) -> np.ndarray:
    """Shot of every sample, int32 `[N]`.

    Raises `artifact_validation_failed` when the shots do not cover the samples.
    """
    union, count = cuts.arrays["union_shot_ids"], len(cuts.arrays["shot_start_time_s"])
    rows = samples.frame_indices
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(union):
        raise TrendFlowError("artifact_validation_failed", "The shots do not cover the sampled frames.")
    ids = union[rows].astype(np.int32)
    if len(ids) and not 0 <= ids.min() <= ids.max() < count:
        raise TrendFlowError("artifact_validation_failed", "A sampled frame belongs to no shot.")
    return ids
