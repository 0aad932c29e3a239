"""Artifacts that obey a schema, made from the schema alone. For tests of whatever reads artifacts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from trendflow.contracts.artifact import Artifact
from trendflow.contracts.canonical import content_digest
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.meta import build_meta
from trendflow.contracts.schema_types import TOTAL_FRAMES, ArtifactSchema, Dimension, FeatureSchema, FieldSchema

IDENTITY = RunIdentity("upload", "clip_1", "run_1", "c" * 64, "sampling_v1", "0.1.0")
DEFAULT_SIZE = 4
WIDE = 10.0
"""How far from a known bound values are drawn where a schema leaves the other end open."""


def valid_artifact(
    schema: ArtifactSchema,
    sizes: Mapping[str, int] | None = None,
    *,
    seed: int = 0,
    optional: bool = True,
    status: str = "ok",
    empty_reason: str | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and meta that satisfy every rule of `schema`.

    `sizes` sets the size of symbols (`N`, `U`, …) and of `total_frames`; others are 4, or less where they count
    distinct indices of which there are fewer. An index needs something to point at and rows of unique indices must fit
    their range, else ValueError. `optional` includes optional arrays.
    """
    maker = _Maker(schema, dict(sizes or {}), np.random.default_rng(seed), optional)
    arrays = maker.arrays()
    spaces = {name: schema.fields[name].unit for name in arrays if schema.fields[name].unit in ("px", "norm_xy")}
    meta = build_meta(
        IDENTITY,
        Artifact(
            arrays,
            status=status,
            empty_reason=empty_reason,
            meta={"coord_space": spaces} if "coord_space" in schema.required_meta else {},
        ),
        producer=schema.producer,
        producer_version="1.0.0",
        schema_version=schema.schema_version,
        idempotency_key="1" * 64,
        input_digest="2" * 64,
        content_digest=content_digest(schema.producer, schema.schema_version, status, empty_reason, arrays),
    )
    if any(field.index_of == TOTAL_FRAMES for field in schema.fields.values()):
        meta[TOTAL_FRAMES] = maker.size(TOTAL_FRAMES)
    return arrays, meta


class _Maker:
    def __init__(self, schema: ArtifactSchema, sizes: dict[str, int], rng: np.random.Generator, optional: bool) -> None:
        self.schema, self.sizes, self.rng = schema, sizes, rng
        self.fields = {name: field for name, field in schema.fields.items() if optional or field.required}
        self.features = self._feature_names()
        if self.features:  # dense signals have none and count source frames in F
            sizes["F"] = len(self.features)

    def size(self, symbol: str) -> int:
        if symbol == TOTAL_FRAMES:
            return self.sizes.get(symbol, 2 * self.size("N"))
        if symbol in self.sizes:
            return self.sizes[symbol]
        counted = (field for field in self.schema.fields.values() if counts(field, symbol))
        return min([DEFAULT_SIZE, *map(self._room, counted)])

    def _room(self, field: FieldSchema) -> int:
        """How many distinct indices the range of an index leaves."""
        return max(0, self.size(str(field.index_of)) - int(_ends(field.range)[0]))

    def arrays(self) -> dict[str, np.ndarray]:
        made = {name: self._array(field) for name, field in self.fields.items()}
        for field in self.fields.values():
            if field.increasing_in_rows:
                for target in field.row_splits_of:
                    made[target] = self._rows(self.schema.fields[target], made[field.name])
        if self.features:
            made["feature_names"] = np.array(self.features, dtype=np.str_)
            made["feature_values"] = np.array([self._value(name) for name in self.features], dtype=np.float32)
        return made

    def _array(self, field: FieldSchema) -> np.ndarray:
        shape = tuple(self._length(dimension) for dimension in field.shape)
        dtype = field.dtypes[0]
        if field.row_splits_of:
            return self._splits(shape[0] - 1, self._length(self.schema.fields[field.row_splits_of[0]].shape[0]))
        if dtype == "<U":
            return np.array([f"word_{i}" for i in range(int(np.prod(shape)))], dtype=np.str_).reshape(shape)
        if dtype == "bool":
            return self.rng.random(shape) < 0.5
        if dtype.startswith("float"):
            return self._floats(field, shape).astype(dtype)
        return self._integers(field, shape).astype(dtype)

    def _length(self, dimension: Dimension) -> int:
        if dimension.symbol is None:
            return DEFAULT_SIZE if dimension.size is None else dimension.size
        return max(0, self.size(dimension.symbol) + dimension.offset)

    def _splits(self, rows: int, values: int) -> np.ndarray:
        if rows == 0 and values:
            raise ValueError("no rows to hold the values")
        lengths = np.full(rows, values // rows if rows else 0)
        lengths[: values % rows if rows else 0] += 1
        return np.concatenate([[0], np.cumsum(self.rng.permutation(lengths))]).astype(np.int64)

    def _rows(self, field: FieldSchema, splits: np.ndarray) -> np.ndarray:
        limit = self.size(str(field.index_of))
        rows = [np.sort(self.rng.choice(limit, n, replace=False)) for n in np.diff(splits)]
        return np.concatenate([*rows, []]).astype(field.dtypes[0])

    def _floats(self, field: FieldSchema, shape: tuple[int, ...]) -> np.ndarray:
        low, high = _ends(field.range)
        values = self.rng.uniform(low, high, shape)
        if field.order is not None:
            return np.sort(values)
        if not field.finite:
            values[self.rng.random(shape) < 0.2] = np.nan
        return values

    def _integers(self, field: FieldSchema, shape: tuple[int, ...]) -> np.ndarray:
        low, high = (int(end) for end in _ends(field.range))
        if field.index_of is not None:
            high = self.size(field.index_of) - 1
        if field.order is not None or field.unique:
            pool = np.arange(low, max(high, low + 3 * shape[0] if field.index_of is None else high) + 1)
            return np.sort(self.rng.choice(pool, shape[0], replace=False))
        return self.rng.integers(low, high, shape, endpoint=True) if np.prod(shape) else np.zeros(shape)

    def _feature_names(self) -> list[str]:
        names: list[str] = []
        for feature in self.schema.features.values():
            members = [feature.name] if feature.pattern is None else [_member(feature, word) for word in ("one", "two")]
            names += members
        return [names[i] for i in self.rng.permutation(len(names))]

    def _value(self, name: str) -> float:
        feature = self.schema.feature(name)
        assert feature is not None
        if not feature.finite and self.rng.random() < 0.2:
            return float("nan")
        return float(self.rng.uniform(*_ends(feature.range)))


def counts(field: FieldSchema, symbol: str) -> bool:
    """Whether `symbol` is the number of distinct indices in `field`. N is not: other sizes follow from it."""
    distinct = field.index_of is not None and (field.order is not None or field.unique)
    return distinct and field.shape[0].symbol == symbol != "N"


def _ends(bounds: tuple[float | None, float | None]) -> tuple[float, float]:
    low, high = bounds
    if low is None:
        return (high - WIDE, high) if high is not None else (-WIDE, WIDE)
    return (low, low + WIDE if high is None else high)


def _member(feature: FeatureSchema, word: str) -> str:
    return re.sub(r"<[a-z]+>", word, feature.name)
