"""Rows with all their feature columns: of many videos for a table, of one for a forecast, by the same code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from trendflow.dataset.table.columns import (
    CAPTURED,
    CHANNEL_SEEN,
    DOCUMENT_SEEN,
    FIRST_SEEN,
    PUBLISHED,
    TIME,
    ColumnProvenance,
)
from trendflow.dataset.table.content_features import ColumnChoice, Content, Layout, embedding_provenance
from trendflow.dataset.table.feature_spec import FeatureSpec
from trendflow.dataset.table.first_sight import FirstSight
from trendflow.dataset.table.metadata_features import CATEGORICAL, metadata_provenance

_TYPES: Mapping[str, pa.DataType] = {
    **dict.fromkeys((PUBLISHED, CAPTURED, FIRST_SEEN, CHANNEL_SEEN, DOCUMENT_SEEN), TIME),
    "mask_channel_statistics": pa.bool_(),
}


@dataclass(frozen=True)
class ContentRows:
    """Chosen content columns of R runs: `values` float32 [R,C] in the order of `provenance`, embeddings [R,D] by name.

    A run without an embedding has NaN there.
    """

    values: np.ndarray
    provenance: tuple[ColumnProvenance, ...]
    embeddings: Mapping[str, np.ndarray]
    embedding_provenance: tuple[ColumnProvenance, ...] = ()


def content_rows(contents: Sequence[Content], spec: FeatureSpec, kinds: Mapping[str, str]) -> ContentRows:
    """Chosen columns of feature vectors. `kinds`: component → kind, for the families.

    Vectors of one layout are stacked; with several, as an analysis across releases may have, columns are the union and
    a run without one has NaN. Raises `config_invalid` for an embedding whose component the runs do not know.
    """
    choice = ColumnChoice(spec)
    provenance: dict[str, ColumnProvenance] = {}
    layouts = {content.layout: choice.of(content.layout) for content in contents}
    for layout, chosen in layouts.items():
        for at in chosen.tolist():
            provenance.setdefault(layout.names[at], layout.provenance(at, kinds))
    names = sorted(provenance)
    place = {name: index for index, name in enumerate(names)}
    values = np.full((len(contents), len(names)), np.nan, dtype=np.float32)
    for layout, chosen in layouts.items():
        rows = [row for row, content in enumerate(contents) if content.layout is layout or content.layout == layout]
        columns = [place[layout.names[at]] for at in chosen.tolist()]
        for row in rows:
            values[row, columns] = contents[row].values[chosen]
    embeddings = {name: _stacked([content.embeddings.get(name) for content in contents]) for name in spec.embeddings}
    described = _described(spec, list(layouts), kinds)
    return ContentRows(values, tuple(provenance[name] for name in names), embeddings, described)


def feature_rows(
    sights: Sequence[FirstSight], content: ContentRows | None, spec: FeatureSpec
) -> tuple[pa.Table, list[ColumnProvenance]]:
    """Ids, times and features of R videos, columns sorted by name, with the provenance of every feature.

    Numbers are float64 (first snapshot) or float32 (content) with NaN where unknown, categories strings with null,
    embeddings fixed-size lists with null. What rests on a text that was captured too late is unknown.
    """
    columns: dict[str, pa.Array] = {
        name: pa.array([sight.columns[name] for sight in sights], _TYPES.get(name, pa.string()))
        for name in (sights[0].columns if sights else ())
    }
    for name in spec.metadata_fields:
        kind = pa.string() if name in CATEGORICAL else pa.float64()
        columns[name] = pa.array([sight.features[name] for sight in sights], kind)
    provenance = [found for found in metadata_provenance() if found.column in spec.metadata_fields]
    if content is not None:
        late = np.array([sight.run_document_late for sight in sights], dtype=bool)
        columns.update(_content_columns(content, late))
        provenance += [*content.provenance, *content.embedding_provenance]
    return pa.table({name: columns[name] for name in sorted(columns)}), provenance


def _content_columns(content: ContentRows, late: np.ndarray) -> dict[str, pa.Array]:
    columns: dict[str, pa.Array] = {}
    for index, found in enumerate(content.provenance):
        values = np.ascontiguousarray(content.values[:, index])
        if found.observed_at == DOCUMENT_SEEN and late.any():
            values = np.where(late, np.float32(np.nan), values)
        columns[found.column] = pa.array(values, pa.float32())
    for found in content.embedding_provenance:
        values = content.embeddings[found.column]
        missing = np.isnan(values).all(axis=1) | (late if found.observed_at == DOCUMENT_SEEN else False)
        flat = pa.array(np.where(missing[:, None], np.float32(0), values).reshape(-1), pa.float32())
        columns[found.column] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(missing))
    return columns


def _stacked(vectors: Sequence[np.ndarray | None]) -> np.ndarray:
    """float32 [R,D], NaN where there is none; D is 1 where nobody has any."""
    width = max((len(vector) for vector in vectors if vector is not None), default=1)
    found = np.full((len(vectors), width), np.nan, dtype=np.float32)
    for row, vector in enumerate(vectors):
        if vector is not None:
            found[row] = vector
    return found


def _described(spec: FeatureSpec, layouts: Sequence[Layout], kinds: Mapping[str, str]) -> tuple[ColumnProvenance, ...]:
    if not layouts:
        return ()
    return tuple(embedding_provenance(name, layouts[0], kinds) for name in spec.embeddings)
