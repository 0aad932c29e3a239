"""What a component returns: named arrays plus a status. Knows nothing of runs, files or Dagster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.vocab import EMPTY_REASONS, WARNINGS


@dataclass(frozen=True)
class ModelUsed:
    """One model that really ran, as it enters `model_signature`. `device` is the class: `cpu` or `cuda`."""

    model_name: str
    model_version: str
    weights_digest: str
    runtime: str
    engine: str
    precision: str
    device: str


@dataclass(frozen=True)
class Artifact:
    """Arrays and status of one component for one video.

    `meta` holds optional meta keys only (`absent_features`, `coord_space`, `batching`, …); identity and
    versions are added by the one wrapper that stores artifacts.
    """

    arrays: Mapping[str, np.ndarray]
    status: str = "ok"
    empty_reason: str | None = None
    warnings: tuple[str, ...] = ()
    models_used: tuple[ModelUsed, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    stage_timings_ms: Mapping[str, float] = field(default_factory=dict)
    device_used: str | None = None
    notes: str | None = None
    extra: Mapping[str, Artifact] = field(default_factory=dict)
    """Further artifacts of the same component by file stem (the Segmenter's `dense_signals`)."""

    def __post_init__(self) -> None:
        if (self.status == "empty") != (self.empty_reason is not None):
            raise TrendFlowError("artifact_validation_failed", "empty_reason must be set exactly when status is empty.")
        if self.empty_reason is not None and self.empty_reason not in EMPTY_REASONS:
            raise TrendFlowError("artifact_validation_failed", f"Unknown empty_reason {self.empty_reason!r}.")
        unknown = set(self.warnings) - WARNINGS
        if unknown:
            raise TrendFlowError("artifact_validation_failed", f"Unknown warnings {sorted(unknown)}.")

    @classmethod
    def empty(cls, reason: str, arrays: Mapping[str, np.ndarray], **fields: Any) -> Artifact:
        return cls(arrays=arrays, status="empty", empty_reason=reason, **fields)


def feature_arrays(features: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Scalars as the two standard members: `feature_names` <U [F] and `feature_values` float32 [F]."""
    names = list(features)
    values = np.array([float(features[name]) for name in names], dtype=np.float32)
    return {"feature_names": np.array(names, dtype=np.str_), "feature_values": values}


def row_splits(lengths: Sequence[int]) -> np.ndarray:
    """Lengths of ragged rows → int64 offsets `[n+1]` starting at 0."""
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)
