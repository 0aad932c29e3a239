"""The one row a model is asked about, built by the code that builds training tables, and guarded like them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.leakage import audit, require_clean
from trendflow.dataset.snapshots.values import utc_time
from trendflow.dataset.table.columns import DOCUMENT_SEEN, ColumnProvenance
from trendflow.dataset.table.feature_spec import FeatureSpec
from trendflow.dataset.table.first_sight import FirstSight, first_sight
from trendflow.dataset.table.metadata_features import AGE, CAPTURED_WITH_DOCUMENT, CHANNEL_COUNTERS
from trendflow.dataset.table.rows import content_rows, feature_rows
from trendflow.inference.compatibility import content_columns
from trendflow.inference.encoding import MISSING, Encoding, column_of
from trendflow.inference.first_snapshot import FirstSnapshot
from trendflow.inference.run_inputs import RunInputs

TARGETS = ("views", "likes")
_HALF = 0.5

FEW_FEATURES, LIKES_HIDDEN = "most_features_missing", "likes_hidden"
DOCUMENT_LATE, NO_CHANNEL = "document_captured_late", "channel_statistics_missing"
INPUT_WARNINGS = (NO_CHANNEL, DOCUMENT_LATE, LIKES_HIDDEN, FEW_FEATURES)
"""What can be said of the inputs of a forecast, beside the warnings of the run."""


@dataclass(frozen=True)
class ModelRow:
    """`table`: one row with the columns of a dataset, `x0_views` and `x0_likes` among them."""

    table: pa.Table
    sight: FirstSight
    x0: dict[str, float]
    features_total: int
    features_missing: int
    warnings: tuple[str, ...]

    @property
    def age_hours(self) -> float:
        return float(self.sight.features[AGE] or 0.0)

    @property
    def age_bucket(self) -> str:
        return str(self.sight.columns["age_bucket"])


def model_row(snapshot: FirstSnapshot, run: RunInputs, spec: FeatureSpec, encoding: Encoding) -> ModelRow:
    """Features of the video as of its first snapshot, as a model with `spec` and `encoding` takes them.

    Raises `input_constraint_violated` for a snapshot before publication or without a publication time,
    `leakage_violation` for a feature that could not be known then, `artifact_validation_failed` for a missing column.
    """
    sight = first_sight(
        snapshot.video,
        snapshot.first,
        spec.leakage.tolerance_minutes,
        channel=snapshot.channel,
        media_duration_seconds=run.duration_seconds,
        run_created_at=utc_time(run.created_at),
    )
    columns = content_columns(encoding.features)
    content = None
    if columns:
        if run.content is None:
            raise TrendFlowError("dependency_missing", "The run has no feature vector.", kind="artifact")
        content = content_rows([run.content], spec, run.kinds)
    table, provenance = feature_rows([sight], content, spec)
    wanted = list(dict.fromkeys(column_of(feature) for feature in encoding.features))
    require_clean(audit(table, provenance, spec.leakage, wanted))
    x0 = {target: _number(sight.features[f"{target}_0"]) for target in TARGETS}
    for target, value in x0.items():
        table = table.append_column(f"x0_{target}", pa.array([value], pa.float64()))
    matrix = encoding.matrix(table)
    missing = int(np.isnan(matrix).sum() + np.count_nonzero(matrix[:, list(encoding.categorical)] == MISSING))
    return ModelRow(
        table=table,
        sight=sight,
        x0=x0,
        features_total=len(encoding.features),
        features_missing=missing,
        warnings=_warnings(snapshot, sight, x0, wanted, provenance, missing / max(1, len(encoding.features))),
    )


def _warnings(
    snapshot: FirstSnapshot,
    sight: FirstSight,
    x0: Mapping[str, float],
    wanted: Collection[str],
    provenance: Sequence[ColumnProvenance],
    missing: float,
) -> tuple[str, ...]:
    """What the model would have read and could not."""
    of_run = {found.column for found in provenance if found.observed_at == DOCUMENT_SEEN}
    found = {
        NO_CHANNEL: not sight.channel_from and not CHANNEL_COUNTERS.keys().isdisjoint(wanted),
        DOCUMENT_LATE: (sight.document_late and not set(CAPTURED_WITH_DOCUMENT).isdisjoint(wanted))
        or (sight.run_document_late and not of_run.isdisjoint(wanted)),
        LIKES_HIDDEN: snapshot.first["likes"] == 0 and np.isnan(x0["likes"]),
        FEW_FEATURES: missing > _HALF,
    }
    return tuple(name for name in INPUT_WARNINGS if found[name])


def _number(value: float | str | None) -> float:
    return float("nan") if value is None else float(value)
