"""The columns of the feature vector: which ones a profile has, and how each is read off an artifact.

Both follow from schemas alone. What a video happens to contain decides values, never names or order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from trendflow.components.base import Declaration, Upstream
from trendflow.components.visual._summary import maximum, mean, percentile, std
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema_types import ArtifactSchema

VALUE = "value"
"""The statistic of a scalar feature: the feature itself."""

STATISTICS: Mapping[str, Callable[[np.ndarray], float]] = {
    "mean": mean,
    "std": std,
    "min": lambda values: -maximum(-values),
    "max": maximum,
    "p50": partial(percentile, q=50.0),
    "p90": partial(percentile, q=90.0),
}
"""Of the finite values of an array, whose schema says under `flatten` which of these enter the vector."""

EMBEDDINGS: Mapping[str, tuple[str, str]] = {
    "clap_extractor__embedding": ("clap_extractor", "embedding"),
    "core_clip__embedding_mean": ("core_clip", "frame_embeddings"),
    "text_processor__primary_embedding": ("text_processor", "primary_embedding"),
}
"""Vectors that are kept whole: array of the feature vector → component and its array, averaged over rows if any."""

UNDEFINED = "undefined for this video"
"""Reason of a value that is NaN by its own definition, like a rate of cuts between two shots in a video of one."""

_MODEL = "model_facing"


@dataclass(frozen=True)
class Column:
    """One number of the vector: a statistic of a component's key."""

    component: str
    key: str
    statistic: str

    @property
    def name(self) -> str:
        return f"{self.component}__{self.key}__{self.statistic}"


def columns_of(declarations: Mapping[str, Declaration]) -> list[Column]:
    """Columns of all declared components, sorted by name.

    Model-facing scalars as they are, model-facing arrays by the statistics their schema lists. An array without such a
    list adds none: most are summarised by scalars already, and a second copy would only split their importance.
    """
    found = [column for name, known in declarations.items() for column in _of_schema(name, known.schema)]
    names = {column.name for column in found}
    if len(names) != len(found):
        raise TrendFlowError("config_invalid", "Two features of the declared components share a column name.")
    return sorted(found, key=lambda column: column.name)


def _of_schema(component: str, schema: ArtifactSchema) -> Iterator[Column]:
    for feature in schema.features.values():
        if feature.tier == _MODEL:
            names = (feature.name,) if feature.pattern is None else feature.members
            yield from (Column(component, name, VALUE) for name in names)
    for field in schema.fields.values():
        # Labels have no statistics; `check_schemas` refuses a schema that asks for them.
        if field.tier == _MODEL and not field.categorical:
            yield from (Column(component, field.name, statistic) for statistic in field.flatten)


class ArtifactReader:
    """Reads columns off one upstream artifact."""

    def __init__(self, upstream: Upstream, schema: ArtifactSchema) -> None:
        """Raises `artifact_validation_failed` for a model-facing scalar that no column stands for."""
        arrays = upstream.arrays
        self._features: dict[str, float] = {}
        if "feature_names" in arrays:
            pairs = zip(arrays["feature_names"].tolist(), arrays["feature_values"].tolist(), strict=True)
            self._features.update(pairs)
        self._upstream, self._schema = upstream, schema
        for name in self._features:
            feature = schema.feature(name)
            if feature is not None and feature.pattern is not None and feature.tier == _MODEL:
                _require_member(upstream.name, name, feature.members)

    def value(self, column: Column) -> float:
        """NaN when the artifact does not hold the key, or holds no finite value under it."""
        if column.statistic == VALUE:
            return self._features.get(column.key, float("nan"))
        array = self._upstream.arrays.get(column.key)
        return float("nan") if array is None else STATISTICS[column.statistic](array)

    def why_missing(self, key: str) -> str:
        """Why a key has no value, in the words of the component when it gave any."""
        stated: Mapping[str, str] = self._upstream.meta.get("absent_features", {})
        if key in stated:
            return stated[key]
        # A name speaks for itself alone, only what is no name is a prefix. The longest one is the most precise.
        prefixes = [prefix for prefix in stated if key.startswith(prefix) and not self._is_name(prefix)]
        if prefixes:
            return stated[max(prefixes, key=len)]
        return self._upstream.empty_reason or UNDEFINED

    def _is_name(self, text: str) -> bool:
        return text in self._features or text in self._schema.fields

    def vector(self, key: str) -> np.ndarray | None:
        """An embedding as float32 `[D]`, the mean of the finite rows of `[N,D]`; None when there is none."""
        array = self._upstream.arrays.get(key)
        if array is None:
            return None
        rows = np.atleast_2d(array).astype(np.float64)
        rows = rows[np.isfinite(rows).all(axis=1)]
        return rows.mean(axis=0).astype(np.float32) if len(rows) else None


def _require_member(component: str, name: str, members: tuple[str, ...]) -> None:
    if name not in members:
        raise TrendFlowError(
            "artifact_validation_failed",
            f"The schema of {component} does not list {name!r} among the members of its family.",
            feature=name,
        )
