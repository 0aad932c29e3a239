"""Checks of an artifact's arrays against its schema. Every check returns sentences; none raises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from trendflow.contracts.schema_types import TOTAL_FRAMES, ArtifactSchema, Bounds, FeatureSchema, FieldSchema

Arrays = Mapping[str, np.ndarray]

# Bounds hold for real numbers; a sum of float32 values such as a dot product of unit vectors may overstep by rounding.
ROUNDING = 1e-5


def check_arrays(schema: ArtifactSchema, arrays: Arrays, total_frames: int | None) -> list[str]:
    """Problems of keys, dtypes, shapes, values and features, in that order.

    Values of an array are only looked at when its dtype and shape are right.
    """
    problems = list(_check_keys(schema, arrays))
    sizes, shape_problems, sound = _check_layout(schema, arrays)
    problems += shape_problems
    if total_frames is not None:
        sizes[TOTAL_FRAMES] = total_frames
    for name in sound:
        field = schema.fields[name]
        problems += [f"Array {name!r} {problem}." for problem in _check_values(field, arrays[name], sizes)]
        if field.row_splits_of:
            problems += [f"Array {name!r} {problem}." for problem in _check_row_splits(field, arrays, sound)]
    if "feature_names" in sound and "feature_values" in sound:
        problems += _check_features(schema, arrays["feature_names"], arrays["feature_values"])
    return problems


def _check_keys(schema: ArtifactSchema, arrays: Arrays) -> Iterator[str]:
    for name in sorted(set(arrays) - set(schema.fields)):
        yield f"Array {name!r} is not in {schema.schema_version}."
    for name, field in schema.fields.items():
        if field.required and name not in arrays:
            yield f"Array {name!r} is missing."


def _check_layout(schema: ArtifactSchema, arrays: Arrays) -> tuple[dict[str, int], list[str], set[str]]:
    """Sizes of the symbols, problems of dtypes and shapes, and the names of the arrays without such a problem."""
    problems: list[str] = []
    sound: set[str] = set()
    for name, field in schema.fields.items():
        if name not in arrays:
            continue
        array = arrays[name]
        if not any(_has_dtype(array.dtype, wanted) for wanted in field.dtypes):
            problems.append(f"Array {name!r} has dtype {array.dtype}, not {' or '.join(field.dtypes)}.")
        elif array.ndim != len(field.shape):
            problems.append(f"Array {name!r} has shape {list(array.shape)}, not {field.shape_text}.")
        else:
            sound.add(name)
    # A symbol takes its size where it stands alone; `N-1` defines N only if nothing else does.
    sizes: dict[str, int] = {}
    for plain in (True, False):
        for name in (name for name in schema.fields if name in sound):
            for size, dimension in zip(arrays[name].shape, schema.fields[name].shape, strict=True):
                if dimension.symbol is not None and (dimension.offset == 0) == plain:
                    sizes.setdefault(dimension.symbol, size - dimension.offset)
    for name in sorted(sound):
        field, shape = schema.fields[name], arrays[name].shape
        expected = [
            dimension.size if dimension.symbol is None else sizes[dimension.symbol] + dimension.offset
            for dimension in field.shape
        ]
        if any(want is not None and want != size for want, size in zip(expected, shape, strict=True)):
            symbols = {dimension.symbol for dimension in field.shape if dimension.symbol is not None}
            where = ", ".join(f"{symbol} = {sizes[symbol]}" for symbol in sorted(symbols))
            suffix = f" with {where}" if where else ""
            problems.append(f"Array {name!r} has shape {list(shape)}, not {field.shape_text}{suffix}.")
            sound.discard(name)
    return sizes, problems, sound


def _has_dtype(dtype: np.dtype, wanted: str) -> bool:
    if wanted == "<U":
        return dtype.kind == "U"
    return dtype == np.dtype(wanted)


def _check_values(field: FieldSchema, array: np.ndarray, sizes: Mapping[str, int]) -> Iterator[str]:
    if array.dtype.kind == "f":
        if np.isinf(array).any():
            yield "holds an infinite value"
        if field.finite and np.isnan(array).any():
            yield "holds NaN, which its schema forbids"
    if array.dtype.kind in "fiu" and field.range != (None, None):
        yield from _outside(array, field.range)
    if field.unique and len(np.unique(array)) != array.size:
        yield "holds a value twice"
    if field.order is not None and len(array) > 1:
        steps_back = array[1:] <= array[:-1] if field.order == "increasing" else array[1:] < array[:-1]
        if steps_back.any():
            yield f"is not {field.order} at row {int(np.argmax(steps_back)) + 1}"
    if field.index_of is not None and field.index_of in sizes and array.size:
        limit = sizes[field.index_of]
        if array.min() < 0 or array.max() >= limit:
            yield f"holds an index outside [0, {limit}), the size of {field.index_of}"


def _outside(values: np.ndarray, bounds: Bounds) -> Iterator[str]:
    known = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    if not known.size:
        return
    low, high = bounds
    exact = values.dtype.kind != "f"
    lowest, highest = known.min(), known.max()
    if low is not None and lowest < low - (0 if exact else ROUNDING * max(1.0, abs(low))):
        yield f"holds {lowest:g}, below its minimum {low:g}"
    if high is not None and highest > high + (0 if exact else ROUNDING * max(1.0, abs(high))):
        yield f"holds {highest:g}, above its maximum {high:g}"


def _check_row_splits(field: FieldSchema, arrays: Arrays, sound: set[str]) -> Iterator[str]:
    splits = arrays[field.name]
    if len(splits) == 0 or splits[0] != 0:
        yield "does not start at 0"
        return
    if (np.diff(splits) < 0).any():
        yield "decreases"
        return
    for target in field.row_splits_of:
        if target not in sound:
            continue
        values = arrays[target]
        if splits[-1] != len(values):
            yield f"ends at {int(splits[-1])} but {target!r} has {len(values)} rows"
        elif field.increasing_in_rows and len(values) > 1:
            steps_back = np.flatnonzero(values[1:] <= values[:-1]) + 1
            # The first value of a row may be anything; every other one must exceed its predecessor.
            if np.setdiff1d(steps_back, splits).size:
                yield f"has a row of {target!r} that is not sorted and unique"


def _check_features(schema: ArtifactSchema, names: np.ndarray, values: np.ndarray) -> list[str]:
    problems: list[str] = []
    listed = names.tolist()  # that no name comes twice is a rule of the `feature_names` field
    for declared in schema.features.values():
        if declared.pattern is None and not declared.optional and declared.name not in listed:
            problems.append(f"Feature {declared.name!r} is missing.")
    for name, value in zip(listed, values, strict=True):
        feature = schema.feature(name)
        if feature is None:
            problems.append(f"Feature {name!r} is not in {schema.schema_version}.")
        else:
            problems += [f"Feature {name!r} {problem}." for problem in _check_feature(feature, value)]
    return problems


def _check_feature(feature: FeatureSchema, value: np.float32) -> Iterator[str]:
    if np.isnan(value):
        if feature.finite:
            yield "is NaN, which its schema forbids"
    elif np.isfinite(value):  # an infinite value is reported for the whole array
        yield from _outside(np.asarray([value]), feature.range)
