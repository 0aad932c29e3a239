"""Feature vectors of many runs as one table, with what each cell's provenance says about comparing it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from trendflow.components.dataset._columns import EMBEDDINGS, UNDEFINED, VALUE
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.schema_types import ArtifactSchema, Bounds
from trendflow.dataset.corpus import VECTOR, RunRecord, in_threads
from trendflow.storage.result_store import ResultStore

_MEMBERS = ("feature_names", "feature_values", "prov_component", "prov_schema_version", "prov_producer_version")
_BOUNDED_BY_VALUES = frozenset({VALUE, "mean", "min", "max", "p50", "p90"})

NO_REASON = "no reason given"

Version = tuple[str, str, str]
"""producer_version, schema_version and model_signature; the signature names the device class too."""


@dataclass(frozen=True)
class ColumnInfo:
    """A column as the schema of its component declares it. `range` may be open at either end."""

    name: str
    component: str
    unit: str
    range: Bounds


@dataclass(frozen=True)
class Vector:
    """The scalars of one feature vector. `reasons`: column or embedding → why it is missing."""

    names: tuple[str, ...]
    values: np.ndarray
    components: tuple[str, ...]
    versions: Mapping[str, tuple[str, str]]
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class FeatureTable:
    """R runs by C columns.

    `values` float32 [R,C] holds NaN where nothing was measured. `comparable` bool [R,C] says whether the cell was
    computed by the version of its component that most runs have; all statistics rest on such cells, since two versions
    are two programs. `reason_codes` int16 [R,C] points into `reasons`, −1 where there is a value. `unexplained` bool
    [R,C] marks missing cells whose component failed or did not say why.
    """

    records: tuple[RunRecord, ...]
    columns: tuple[ColumnInfo, ...]
    values: np.ndarray
    comparable: np.ndarray
    reason_codes: np.ndarray
    reasons: tuple[str, ...]
    unexplained: np.ndarray
    versions: Mapping[str, Mapping[Version, int]]
    """Component → runs per version."""
    embeddings: Mapping[str, float] = field(default_factory=dict)
    """Embedding → share of the runs that hold it."""
    unreadable: tuple[str, ...] = ()

    @property
    def first_of_source(self) -> np.ndarray:
        """bool [R]: rows that are the first of their source file, so that a file under two ids counts once."""
        seen: set[str] = set()
        first = np.zeros(len(self.records), dtype=bool)
        for row, record in enumerate(self.records):
            source = record.source_sha256 or record.video
            first[row] = source not in seen
            seen.add(source)
        return first

    def column(self, name: str) -> np.ndarray | None:
        """float64 [R] of one column, NaN in cells of another version; None when there is no such column."""
        for index, info in enumerate(self.columns):
            if info.name == name:
                return np.where(self.comparable[:, index], self.values[:, index].astype(np.float64), np.nan)
        return None


def read_vector(results: ResultStore, record: RunRecord) -> Vector:
    """The scalars of a run's vector; only the members needed are fetched.

    Raises `artifact_validation_failed` when the file is not the one its manifest names.
    """
    stored = results.read_artifact(record.run_path, VECTOR, names=_MEMBERS)
    if stored.meta.get("content_digest") != record.vector_digest:
        raise TrendFlowError("artifact_validation_failed", "The feature vector is not the one its manifest names.")
    names, values, *provenance = (stored.arrays[member] for member in _MEMBERS)
    components, schemas, producers = (member.tolist() for member in provenance)
    versions = dict(zip(components, zip(producers, schemas, strict=True), strict=True))
    reasons: Mapping[str, str] = stored.meta.get("absent_features", {})
    return Vector(tuple(names.tolist()), values, tuple(components), versions, reasons)


def read_vectors(
    results: ResultStore, records: Sequence[RunRecord]
) -> tuple[list[tuple[RunRecord, Vector]], tuple[str, ...]]:
    """Vectors of all runs that have a sound one, and the keys of the others. Raises `storage_unavailable`."""
    # Runs of one release have the same columns; names of its own for each are gigabytes in a corpus of 100 000.
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}

    def read(record: RunRecord) -> Vector | None:
        try:
            found = read_vector(results, record)
        except TrendFlowError as error:  # one damaged file must not hide what the other runs say
            if error.error_class == "transient":
                raise
            return None
        names, components = (shared.setdefault(texts, texts) for texts in (found.names, found.components))
        reasons = {sys.intern(name): sys.intern(reason) for name, reason in found.reasons.items()}
        return replace(found, names=names, components=components, reasons=reasons)

    found = list(zip(records, in_threads(read, records), strict=True))
    sound = [(record, vector) for record, vector in found if vector is not None]
    return sound, tuple(record.key for record, vector in found if vector is None)


def build_table(
    rows: Sequence[tuple[RunRecord, Vector]], schemas: SchemaRegistry, unreadable: Iterable[str] = ()
) -> FeatureTable:
    """Stack vectors. Columns are the union of theirs, sorted; a run whose vector lacks one is not comparable there."""
    component_of: dict[str, str] = {}
    for _, vector in rows:
        component_of.update(zip(vector.names, vector.components, strict=True))
    names = sorted(component_of)
    place = {name: index for index, name in enumerate(names)}
    shape = (len(rows), len(names))
    values = np.full(shape, np.nan, dtype=np.float32)
    held = np.zeros(shape, dtype=bool)
    for row, (_, vector) in enumerate(rows):
        where = [place[name] for name in vector.names]
        values[row, where] = vector.values
        held[row, where] = True

    components = sorted(set(component_of.values()))
    of_component = {name: np.array([component_of[column] == name for column in names]) for name in components}
    counts: dict[str, Mapping[Version, int]] = {}
    prevailing: dict[str, Version] = {}
    same = np.zeros(shape, dtype=bool)
    failed = np.zeros(shape, dtype=bool)
    for name, columns in of_component.items():
        versions = [_version(record, vector, name) for record, vector in rows]
        counts[name] = Counter(version for version in versions if version is not None and version[2])
        prevailing[name] = _most(counts[name], versions)
        fits = np.array([version is not None and _fits(version, prevailing[name]) for version in versions])
        lost = np.array([not _measured(record, name) for record, _ in rows])
        same |= fits[:, None] & columns
        failed |= lost[:, None] & columns

    codes, reasons = _reasons(rows, place, np.isnan(values) & held)
    silent = np.array([reason in (NO_REASON, UNDEFINED) for reason in reasons], dtype=bool)
    missing = codes >= 0
    infos = tuple(_info(name, component_of[name], prevailing[component_of[name]][1], schemas) for name in names)
    return FeatureTable(
        records=tuple(record for record, _ in rows),
        columns=infos,
        values=values,
        comparable=held & same,
        reason_codes=codes,
        reasons=reasons,
        unexplained=missing & (failed | (silent[codes] if len(reasons) else False)),
        versions=counts,
        embeddings=_embeddings(rows, components),
        unreadable=tuple(unreadable),
    )


def _version(record: RunRecord, vector: Vector, component: str) -> Version | None:
    """The version behind a component's cells, with an empty signature when it gave no result; None without cells."""
    if component not in vector.versions:
        return None
    signature = record.outcomes[component].version[2] if _measured(record, component) else ""
    return (*vector.versions[component], signature)


def _measured(record: RunRecord, component: str) -> bool:
    outcome = record.outcomes.get(component)
    return outcome is not None and outcome.status != "error"


def _most(counts: Mapping[Version, int], versions: Sequence[Version | None]) -> Version:
    """The most frequent version; of equally many the last in order. Of a component that always failed, any."""
    if counts:
        return max(counts, key=lambda version: (counts[version], version))
    return max(version for version in versions if version is not None)


def _fits(version: Version, prevailing: Version) -> bool:
    return version[:2] == prevailing[:2] and version[2] in ("", prevailing[2])


def _reasons(
    rows: Sequence[tuple[RunRecord, Vector]], place: Mapping[str, int], missing: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes int16 [R,C] of the reasons of missing cells, −1 elsewhere, and the reasons by code."""
    known: dict[str, int] = {NO_REASON: 0}
    codes = np.where(missing, 0, -1).astype(np.int16)
    for row, (_, vector) in enumerate(rows):
        for name, reason in vector.reasons.items():
            if name in place and missing[row, place[name]]:
                codes[row, place[name]] = known.setdefault(reason, len(known))
    return codes, tuple(known)


def _info(name: str, component: str, schema_version: str, schemas: SchemaRegistry) -> ColumnInfo:
    if schema_version not in schemas:  # of a release that knew a schema this one does not
        return ColumnInfo(name, component, "", (None, None))
    key, _, statistic = name.removeprefix(f"{component}__").rpartition("__")
    unit, bounds = _declared(schemas.get(schema_version), key, statistic)
    return ColumnInfo(name, component, unit, bounds)


def _declared(schema: ArtifactSchema, key: str, statistic: str) -> tuple[str, Bounds]:
    declared = schema.feature(key) if statistic == VALUE else schema.fields.get(key)
    if declared is None:
        return "", (None, None)
    low, high = declared.range
    if statistic not in _BOUNDED_BY_VALUES:  # a standard deviation within [low, high]
        low, high = 0.0, None if low is None or high is None else (high - low) / 2
    return declared.unit or "", (low, high)


def _embeddings(rows: Sequence[tuple[RunRecord, Vector]], components: Sequence[str]) -> dict[str, float]:
    names = [name for name, (component, _) in EMBEDDINGS.items() if component in components]
    if not rows:
        return {}
    return {name: sum(name not in vector.reasons for _, vector in rows) / len(rows) for name in names}
