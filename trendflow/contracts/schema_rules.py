"""What a schema file must satisfy besides its format, so that bad schemas fail in review and not on a video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trendflow.contracts.meta import OPTIONAL_META, REQUIRED_META
from trendflow.contracts.schema_types import TOTAL_FRAMES, ArtifactSchema, FieldSchema

FEATURE_FIELDS = ("feature_names", "feature_values")


def check_artifact_schema(schema: ArtifactSchema) -> Iterator[str]:
    """Sentences about one schema, each beginning with its version."""
    for problem in (*_meta(schema), *_features(schema)):
        yield f"{schema.schema_version}: {problem}"
    symbols = {dimension.symbol for field in schema.fields.values() for dimension in field.shape}
    for field in schema.fields.values():
        for problem in (*_use(field), *_statistics(field), *_structure(field, schema.fields, symbols)):
            yield f"{schema.schema_version}: array {field.name!r} {problem}"


def _meta(schema: ArtifactSchema) -> Iterator[str]:
    required, optional = set(schema.required_meta), set(schema.optional_meta)
    if missing := sorted(set(REQUIRED_META) - required):
        yield f"meta keys {missing} must be required."
    if unknown := sorted((required | optional) - {*REQUIRED_META, *OPTIONAL_META}):
        yield f"meta keys {unknown} are not in the contract."
    if both := sorted(required & optional):
        yield f"meta keys {both} are required and optional at once."


def _features(schema: ArtifactSchema) -> Iterator[str]:
    held = [name for name in FEATURE_FIELDS if name in schema.fields]
    if len(held) != (len(FEATURE_FIELDS) if schema.features else 0):
        yield "features need the arrays feature_names and feature_values, and the arrays need features."
    for feature in schema.features.values():
        if _reversed(feature.range):
            yield f"feature {feature.name!r} has a range whose ends are swapped."
        if strangers := [name for name in feature.members if feature.pattern is None or not feature.matches(name)]:
            yield f"feature {feature.name!r} is no family of {strangers}."
        for other in schema.features.values():
            if feature.pattern is not None and other.pattern is None and feature.matches(other.name):
                yield f"feature family {feature.name!r} also covers {other.name!r}."


def _use(field: FieldSchema) -> Iterator[str]:
    if field.required and not field.consumers:
        yield "has no consumer and must therefore be optional."


def _statistics(field: FieldSchema) -> Iterator[str]:
    if _reversed(field.range):
        yield "has a range whose ends are swapped."
    if field.categorical and any(dtype.startswith("float") for dtype in field.dtypes):
        yield "is categorical but not of an integer or string type."
    if field.flatten and (field.categorical or "<U" in field.dtypes):
        yield "holds labels, which have no mean or percentiles to flatten."
    if field.flatten and len(field.shape) != 1:
        yield "is not one-dimensional, so that its statistics would mix different quantities."
    if field.flatten and "bool" in field.dtypes and field.flatten != ("mean",):
        yield "is boolean and flattens to its mean only."


def _structure(field: FieldSchema, fields: Mapping[str, FieldSchema], symbols: set[str | None]) -> Iterator[str]:
    one_dimensional = len(field.shape) == 1
    if (field.order is not None or field.row_splits_of or field.unique) and not one_dimensional:
        yield "declares an order, uniqueness or row splits but is not one-dimensional."
    if field.index_of is not None and field.index_of != TOTAL_FRAMES and field.index_of not in symbols:
        yield f"is an index of {field.index_of}, which no shape mentions."
    if field.name.endswith("_row_splits") != bool(field.row_splits_of):
        yield "must be named *_row_splits exactly when it declares row_splits_of."
    if field.row_splits_of and field.dtypes != ("int64",):
        yield "holds row splits, which are int64."
    if unknown := [name for name in field.row_splits_of if name not in fields]:
        yield f"splits {unknown}, which the schema does not have."
    if field.increasing_in_rows and not field.row_splits_of:
        yield "declares increasing_in_rows without row_splits_of."


def _reversed(bounds: tuple[Any, Any]) -> bool:
    low, high = bounds
    return low is not None and high is not None and low > high
