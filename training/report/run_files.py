"""A finished training run as the report reads it: manifest, metrics, predictions and the metadata of its dataset."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.predictions import PREDICTIONS
from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.table.files import METADATA_FILE
from trendflow.inference.bundle import MANIFEST, METRICS
from trendflow.presentation.forecast_texts import head_order, split_head

OWN = ("model", "p50")
"""Forecasts of the model itself: the point forecast it is trained for, and the median that is shown to people."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % bootstrap interval; NaN where the metric has no value."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, found: Mapping[str, Any] | None) -> Estimate:
        read = (found or {}).get
        return cls(*(math.nan if (value := read(key)) is None else float(value) for key in ("value", "low", "high")))

    def as_dict(self) -> dict[str, float | None]:
        """The form `of` reads."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Cell:
    """The metrics of one predictor on one set of rows. `low_n`: too few rows to mean anything."""

    n: int
    n_channels: int
    low_n: bool
    metrics: Mapping[str, Estimate]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Cell:
        metrics = {name: Estimate.of(found.get(name)) for name in ("spearman", "rmse", "mae")}
        return cls(int(found["n"]), int(found["n_channels"]), bool(found.get("low_n", False)), metrics)


@dataclass(frozen=True)
class Rows:
    """Evaluated rows of one head, float64 [N] each, on the log1p scale."""

    y: np.ndarray
    p10: np.ndarray
    p50: np.ndarray
    p90: np.ndarray


@dataclass(frozen=True)
class ReportedRun:
    """`dataset` is the metadata document of the dataset, empty when the run folder holds none."""

    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any]
    predictions: pa.Table
    dataset: Mapping[str, Any]

    @property
    def synthetic(self) -> bool:
        return bool(self.manifest["synthetic"])

    @cached_property
    def heads(self) -> list[str]:
        return sorted(self.metrics["heads"], key=head_order)

    def head(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.metrics["heads"][name]
        return found

    def predictors(self, head: str) -> dict[str, Mapping[str, Any]]:
        """`model` first, the median forecast `p50` where it is another, then every comparator.

        Each has `overall` and `buckets`.
        """
        found = self.head(head)
        own = {name: found[name] for name in OWN if name in found}
        return {**own, **found["comparators"]}

    def difference(self, head: str, comparator: str, metric: str, bucket: str | None = None) -> Estimate:
        """Model minus comparator on the same rows: all, or those of one age bucket."""
        found = self.head(head).get("differences", {}).get(comparator, {})
        part = found.get("overall", {}) if bucket is None else found.get("buckets", {}).get(bucket, {})
        return Estimate.of(part.get(metric))

    @cached_property
    def rows(self) -> Mapping[str, Rows]:
        """Head → its evaluated rows."""
        columns = {name: self.predictions.column(name).to_numpy(zero_copy_only=False) for name in _ROW_COLUMNS}
        evaluated = self._evaluated()
        found = {}
        for head in self.heads:
            target, days = split_head(head)
            chosen = evaluated & (columns["target"] == target) & (columns["horizon"] == f"{days}d")
            y, p10, p50, p90 = (columns[name][chosen].astype(np.float64) for name in ("y", "p10", "p50", "p90"))
            found[head] = Rows(y, p10, p50, p90)
        return found

    def _evaluated(self) -> np.ndarray:
        """Rows the metrics rest on: the test part, or every held-out row of pooled folds."""
        if "part" not in self.predictions.column_names:
            return np.ones(self.predictions.num_rows, dtype=bool)
        found: np.ndarray = self.predictions.column("part").to_numpy(zero_copy_only=False) == "test"
        return found


_ROW_COLUMNS = ("target", "horizon", "y", "p10", "p50", "p90")


def read_reported_run(folder: Path) -> ReportedRun:
    """Read a run folder. Raises `dependency_missing` for a file that is not there, `artifact_validation_failed` for one
    that cannot be read."""
    dataset = folder / METADATA_FILE
    try:
        predictions = pq.read_table(folder / PREDICTIONS)
    except FileNotFoundError as exc:
        raise _missing(PREDICTIONS) from exc
    except pa.ArrowInvalid as exc:
        raise TrendFlowError("artifact_validation_failed", f"{PREDICTIONS} of the training run is no table.") from exc
    return ReportedRun(
        manifest=_json(folder / MANIFEST),
        metrics=_json(folder / METRICS),
        predictions=predictions,
        dataset=_json(dataset) if dataset.exists() else {},
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as exc:
        raise _missing(path.name) from exc
    except ValueError as exc:
        raise TrendFlowError("artifact_validation_failed", f"{path.name} of the training run is not JSON.") from exc
    if not isinstance(found, dict):
        raise TrendFlowError("artifact_validation_failed", f"{path.name} of the training run is no JSON object.")
    return found


def _missing(name: str) -> TrendFlowError:
    return TrendFlowError("dependency_missing", f"The training run holds no {name}.", kind="artifact", name=name)
