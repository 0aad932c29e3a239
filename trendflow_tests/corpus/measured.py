"""Model-facing columns of many runs, and what is wrong with those that never vary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.schema_types import ArtifactSchema, FieldSchema

LEAST_SPREAD = 0.08
"""(max − min) / max |x| below which a column counts as constant.

Wide enough to catch what is constant but for rounding: the share of 40 to 70 samples above a percentile of their own,
probabilities that are all 1/n, norms of unit vectors.
"""


@dataclass
class Columns:
    """Finite values per column over all runs; a column is one scalar feature or one position in the rows of an array.

    Columns are named `component.key`, `component.key[i]` or `component.key[name]`.
    """

    schemas: SchemaRegistry
    values: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    unexplained: set[str] = field(default_factory=set)
    """`column in clip` for scalar features that are NaN in an `ok` artifact without a reason."""
    artifacts: dict[str, ArtifactSchema] = field(default_factory=dict)
    """Schemas of everything that was added."""

    def add(self, clip: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        """One artifact with its meta."""
        schema = self.schemas.get(meta["schema_version"])
        producer = schema.producer
        self.artifacts[schema.schema_version] = schema
        for name, declared in schema.fields.items():
            if declared.tier == "model_facing" and name in arrays and arrays[name].dtype.kind != "U":
                if name == "feature_values":
                    self._add_features(clip, schema, arrays, meta)
                else:
                    labels = arrays["frame_feature_names"].tolist() if "G" in str(declared.shape_text) else None
                    self._add_array(f"{producer}.{name}", declared, arrays[name], labels)

    def _add_features(
        self, clip: str, schema: ArtifactSchema, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]
    ) -> None:
        absent = meta.get("absent_features", {})
        for name, value in zip(arrays["feature_names"].tolist(), arrays["feature_values"].tolist(), strict=True):
            declared = schema.feature(name)
            if declared is None or declared.tier != "model_facing":
                continue
            column = f"{schema.producer}.{name}"
            self.values[column].append(_finite(np.array([value])))
            if np.isnan(value) and meta["status"] == "ok":
                # A key that is itself a feature speaks for that one alone; any other speaks for all it begins.
                prefixes = tuple(set(absent).difference(arrays["feature_names"].tolist()))
                if name not in absent and not name.startswith(prefixes):
                    self.unexplained.add(f"{column} in {clip}")

    def _add_array(self, column: str, declared: FieldSchema, array: np.ndarray, labels: list[str] | None) -> None:
        rows = array[None] if _describes_the_video(declared) else array
        if rows.ndim == 1:
            self.values[column].append(_finite(rows))
            return
        flat = rows.reshape(len(rows), int(np.prod(rows.shape[1:])))
        for k in range(flat.shape[1]):
            self.values[f"{column}[{k if labels is None else labels[k]}]"].append(_finite(flat[:, k]))

    def faults(self) -> dict[str, str]:
        """Column → what is wrong with it: `never measured` or `constant`."""
        found = {}
        for column, parts in self.values.items():
            verdict = fault(np.concatenate(parts))
            if verdict is not None:
                found[column] = verdict
        return found

    def never_written(self) -> list[str]:
        """Model-facing arrays and features that a schema declares and no artifact holds."""
        found = []
        keys = {column.split("[")[0] for column in self.values}
        for schema in self.artifacts.values():
            for declared in schema.fields.values():
                text = declared.dtypes[0].startswith("<U") or declared.name == "feature_values"
                if declared.tier == "model_facing" and not text and f"{schema.producer}.{declared.name}" not in keys:
                    found.append(f"{schema.producer}.{declared.name}")
            names = [key.removeprefix(f"{schema.producer}.") for key in keys]
            for feature in schema.features.values():
                if feature.tier == "model_facing" and not any(feature.matches(name) for name in names):
                    found.append(f"{schema.producer}.{feature.name}")
        return sorted(found)


def fault(values: np.ndarray) -> str | None:
    """What is wrong with the finite values of a column, or None."""
    if len(values) == 0:
        return "never measured"
    largest = float(np.abs(values).max())
    if len(values) == 1 or float(np.ptp(values)) <= LEAST_SPREAD * largest:
        return f"constant near {values[0]:g}"
    return None


def _finite(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    return values[np.isfinite(values)]


def _describes_the_video(declared: FieldSchema) -> bool:
    """Whether the array is one row: a scalar, a vector of fixed size, or an embedding of the whole video."""
    if len(declared.shape) != 1:
        return len(declared.shape) == 0
    return declared.shape[0].size is not None or declared.name.endswith("embedding")
