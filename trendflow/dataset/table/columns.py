"""What a dataset says about each of its feature columns, and the names its other columns have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import pyarrow as pa
import pyarrow.compute as pc

ROW_KEY = ("platform_id", "video_id")

PUBLISHED, CAPTURED, FIRST_SEEN, CHANNEL_SEEN = "publish_time", "captured_at", "t0", "channel_observed_at"
DOCUMENT_SEEN = "document_observed_at"
"""Columns of the dataset that hold observation times: of media, of the page of the first snapshot, of counters, of the
channel's, and of the text that came with the run. That text is handed in with the video, not with the snapshot, so the
time of the snapshot says nothing about it; it was there when the run was created, and nothing proves more than that."""

METADATA = "metadata"
"""The family, and the component, of columns that no component of a run computed."""

FAMILIES = (METADATA, "visual", "audio", "text")
"""Families of features, the unit of an ablation."""

_FAMILY_OF_KIND = {"segmenter": "visual", "core": "visual", "module": "visual", "audio": "audio", "text": "text"}

TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class ColumnProvenance:
    """Where the values of one feature column come from.

    `source_kind` is one of `leakage.SOURCE_KINDS`. `observed_at` names the time column of the dataset that says, row by
    row, when they were observed. `component` is the component of the run, or `metadata`; the versions of columns
    without a component are empty.
    """

    column: str
    source_kind: str
    observed_at: str
    family: str
    component: str
    schema_version: str = ""
    producer_version: str = ""


def family_of(kind: str) -> str:
    """The family of a component of this `kind`, as its manifest row names it."""
    return _FAMILY_OF_KIND.get(kind, "visual")


PROVENANCE_SCHEMA = pa.schema(
    [
        *(pa.field(field.name, pa.string(), nullable=False) for field in fields(ColumnProvenance)),
        pa.field("observed_at_min", TIME),
        pa.field("observed_at_max", TIME),
    ]
)


def provenance_table(columns: Iterable[ColumnProvenance], table: pa.Table) -> pa.Table:
    """One row per feature column, sorted, with the range of its observation times over the rows of `table`."""
    rows = []
    ranges: dict[str, dict[str, object]] = {}
    for found in sorted(columns, key=lambda column: column.column):
        if found.observed_at not in ranges:
            ranges[found.observed_at] = pc.min_max(table[found.observed_at]).as_py()
        bounds = ranges[found.observed_at]
        named = {field.name: getattr(found, field.name) for field in fields(ColumnProvenance)}
        rows.append({**named, "observed_at_min": bounds["min"], "observed_at_max": bounds["max"]})
    return pa.Table.from_pylist(rows, schema=PROVENANCE_SCHEMA)


def read_provenance(table: pa.Table) -> Sequence[ColumnProvenance]:
    """The inverse of `provenance_table`, without the ranges."""
    names = [field.name for field in fields(ColumnProvenance)]
    return [ColumnProvenance(**{name: row[name] for name in names}) for row in table.select(names).to_pylist()]
