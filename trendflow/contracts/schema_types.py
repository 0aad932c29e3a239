"""Machine schemas of artifacts (`vp_schema_v1`) as values. The files under `schemas/` are their only source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trendflow.contracts.errors import TrendFlowError

SCHEMA_SYSTEM_VERSION = "vp_schema_v1"
DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool", "<U")
TIERS = ("model_facing", "analytics", "debug")
TOTAL_FRAMES = "total_frames"
"""The `index_of` target that is no symbol: the size of the union of sampled frames."""

_DIMENSION = re.compile(r"([A-Z][A-Z0-9]*)([+-][0-9]+)?\Z")

Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Dimension:
    """One dimension of a shape: a fixed size, a symbol with an offset (`N-1`), or any size."""

    size: int | None = None
    symbol: str | None = None
    offset: int = 0

    @classmethod
    def parse(cls, value: int | str) -> Dimension:
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls(size=value)
        if value == "any":
            return cls()
        match = _DIMENSION.match(value) if isinstance(value, str) else None
        if match is None:
            raise TrendFlowError("config_invalid", f"{value!r} is not a dimension of {SCHEMA_SYSTEM_VERSION}.")
        return cls(symbol=match[1], offset=int(match[2] or 0))

    def __str__(self) -> str:
        if self.symbol is not None:
            return f"{self.symbol}{self.offset:+d}" if self.offset else self.symbol
        return "any" if self.size is None else str(self.size)


@dataclass(frozen=True)
class FieldSchema:
    """One array of an artifact and the rules its values obey.

    `range` bounds every value except NaN. `order` is `increasing` (strictly) or `nondecreasing`. `index_of` names the
    symbol (or `total_frames`) whose size all values must stay below. `row_splits_of` makes the field the offsets of
    the named flat arrays; `increasing_in_rows` asks each of their rows to increase strictly. A `categorical` number is
    a label: it may be counted, never averaged.
    """

    name: str
    required: bool
    tier: str
    dtypes: tuple[str, ...]
    shape: tuple[Dimension, ...]
    unit: str | None
    range: Bounds
    categorical: bool
    flatten: tuple[str, ...]
    finite: bool
    unique: bool
    order: str | None
    index_of: str | None
    row_splits_of: tuple[str, ...]
    increasing_in_rows: bool
    description: str
    consumers: tuple[str, ...]

    @property
    def shape_text(self) -> str:
        return f"[{', '.join(str(dimension) for dimension in self.shape)}]"


@dataclass(frozen=True)
class FeatureSchema:
    """One scalar feature, or with `pattern` a family whose members come from a model's catalogue entry.

    `members` are those of its members that are columns of the feature vector, in every video.
    """

    name: str
    tier: str
    unit: str | None
    range: Bounds
    formula: str
    finite: bool
    optional: bool
    pattern: re.Pattern[str] | None
    members: tuple[str, ...] = ()

    def matches(self, name: str) -> bool:
        return name == self.name if self.pattern is None else self.pattern.fullmatch(name) is not None


@dataclass(frozen=True)
class ArtifactSchema:
    """Everything that may be said of artifacts of one `schema_version`. `document` is the file's content."""

    schema_version: str
    producer: str
    artifact_kind: str
    description: str
    required_meta: tuple[str, ...]
    optional_meta: tuple[str, ...]
    fields: Mapping[str, FieldSchema]
    features: Mapping[str, FeatureSchema]
    document: Mapping[str, Any]

    def feature(self, name: str) -> FeatureSchema | None:
        """The declaration that covers a feature name, exact names before families; None if there is none."""
        exact = self.features.get(name)
        if exact is not None and exact.pattern is None:
            return exact
        return next((feature for feature in self.features.values() if feature.pattern and feature.matches(name)), None)


def parse_artifact_schema(document: Mapping[str, Any]) -> ArtifactSchema:
    """A schema file's content as an `ArtifactSchema`. Raises `config_invalid` for what the format does not know.

    Only what the validator relies on is checked here; `check_schemas` checks the rest of the format.
    """
    version = document.get("schema_version")
    if document.get("schema_system_version") != SCHEMA_SYSTEM_VERSION or not isinstance(version, str):
        raise TrendFlowError("config_invalid", f"Not a {SCHEMA_SYSTEM_VERSION} document.")
    try:
        if document["allow_extra_keys"] is not False:
            raise TrendFlowError("config_invalid", f"{version}: allow_extra_keys must be false.")
        return ArtifactSchema(
            schema_version=version,
            producer=document["producer"],
            artifact_kind=document["artifact_kind"],
            description=document["description"],
            required_meta=tuple(document["meta"]["required_keys"]),
            optional_meta=tuple(document["meta"]["optional_keys"]),
            fields={name: _field(name, entry) for name, entry in document["fields"].items()},
            features={name: _feature(name, entry) for name, entry in document["features"].items()},
            document=document,
        )
    except KeyError as exc:
        raise TrendFlowError("config_invalid", f"{version}: {exc.args[0]!r} is missing.") from exc
    except (TypeError, AttributeError, re.error) as exc:
        raise TrendFlowError("config_invalid", f"{version}: a value has the wrong type or form.") from exc


def _field(name: str, entry: Mapping[str, Any]) -> FieldSchema:
    dtype = entry["dtype"]
    dtypes = (dtype,) if isinstance(dtype, str) else tuple(dtype)
    if not dtypes or not set(dtypes).issubset(DTYPES):
        raise TrendFlowError("config_invalid", f"Field {name!r}: dtype {dtype!r} is not in the contract.")
    return FieldSchema(
        name=name,
        required=entry["required"],
        tier=entry["tier"],
        dtypes=dtypes,
        shape=tuple(Dimension.parse(value) for value in entry["shape"]),
        unit=entry["unit"],
        range=_bounds(entry["range"]),
        categorical=entry["categorical"],
        flatten=tuple(entry["flatten"]),
        finite=entry.get("finite", False),
        unique=entry.get("unique", False),
        order=entry.get("order"),
        index_of=entry.get("index_of"),
        row_splits_of=tuple(entry.get("row_splits_of", ())),
        increasing_in_rows=entry.get("increasing_in_rows", False),
        description=entry["description"],
        consumers=tuple(entry["consumers"]),
    )


def _feature(name: str, entry: Mapping[str, Any]) -> FeatureSchema:
    pattern = entry.get("pattern")
    return FeatureSchema(
        name=name,
        tier=entry["tier"],
        unit=entry["unit"],
        range=_bounds(entry["range"]),
        formula=entry["formula"],
        finite=entry.get("finite", False),
        optional=entry.get("optional", False),
        pattern=re.compile(pattern) if pattern is not None else None,
        members=tuple(entry.get("members", ())),
    )


def _bounds(value: list[float | None] | None) -> Bounds:
    if value is None:
        return (None, None)
    low, high = value
    return (low, high)
