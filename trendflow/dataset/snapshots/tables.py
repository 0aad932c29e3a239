"""The normalised tables `snapshots_v1` and `videos_v1`, and the folder they are kept in.

A snapshot is what the platform showed about one video at one time. Missing numbers are NaN, other missing values null.
Texts (titles, descriptions, tags) live in `videos_v1` only; comments live nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import platform_of
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.dataset.parquet import parquet_bytes
from trendflow.dataset.snapshots.report import REPORT_VERSION, ImportReport

UTC_TIME = pa.timestamp("us", tz="UTC")

COUNTERS = ("views", "likes", "comments", "channel_subscribers", "channel_views", "channel_videos")
KEY = ("platform_id", "video_id")

SNAPSHOTS_V1 = pa.schema(
    [
        pa.field("platform_id", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("snapshot_time", UTC_TIME, nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in COUNTERS),
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_row", pa.int64(), nullable=False),
    ],
    metadata={"schema_version": "snapshots_v1"},
)
"""One row per (video, time), sorted by platform, video and time. `source_row` is the 0-based position in `source`."""

VIDEOS_V1 = pa.schema(
    [
        pa.field("platform_id", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("publish_time", UTC_TIME),
        pa.field("channel_id", pa.string()),
        pa.field("channel_title", pa.string()),
        pa.field("category_id", pa.string()),
        pa.field("title", pa.string()),
        pa.field("description", pa.string()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("duration_seconds", pa.float64(), nullable=False),
        pa.field("made_for_kids", pa.bool_()),
        pa.field("has_chapters", pa.bool_()),
        pa.field("chapter_count", pa.float64(), nullable=False),
        pa.field("n_thumbnails", pa.float64(), nullable=False),
        pa.field("n_subtitle_langs", pa.float64(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("definition", pa.string()),
        pa.field("caption", pa.bool_()),
        pa.field("captured_at", UTC_TIME, nullable=False),
        pa.field("source", pa.string(), nullable=False),
    ],
    metadata={"schema_version": "videos_v1"},
)
"""One row per video that has a snapshot, sorted by platform and video: its metadata as of its first snapshot.

`category_id` is a category and therefore text. `captured_at` is the time of that snapshot.
"""

_FILES: Mapping[str, pa.Schema] = {"snapshots.parquet": SNAPSHOTS_V1, "videos.parquet": VIDEOS_V1}
_REPORT = "import_report.json"


@dataclass(frozen=True)
class SnapshotSet:
    """Both tables of one import and the report on it."""

    snapshots: pa.Table
    videos: pa.Table
    report: ImportReport

    def write(self, folder: Path) -> None:
        """Write `snapshots.parquet`, `videos.parquet` and `import_report.json`; equal sets give equal bytes.

        Raises OSError when the folder cannot be written, `artifact_validation_failed` for tables or a report that break
        their own schema.
        """
        _require_report(self.report.as_dict())
        folder.mkdir(parents=True, exist_ok=True)
        # The report goes first and comes last: tables of two imports beside each other are no set.
        (folder / _REPORT).unlink(missing_ok=True)
        for (name, schema), table in zip(_FILES.items(), (self.snapshots, self.videos), strict=True):
            _replace(folder / name, parquet_bytes(_conforming(table, schema, name)))
        _replace(folder / _REPORT, self.report.to_json())

    @classmethod
    def read(cls, folder: Path) -> SnapshotSet:
        """Read what `write` wrote.

        Raises `dependency_missing` when a file is not there and `artifact_validation_failed` when one is not what its
        name says.
        """
        tables = [_read(folder / name, schema) for name, schema in _FILES.items()]
        try:
            document = json.loads(_bytes(folder / _REPORT))
        except (ValueError, RecursionError) as exc:
            raise TrendFlowError("artifact_validation_failed", f"{_REPORT} is not an import report.") from exc
        _require_report(document)
        found = cls(tables[0], tables[1], ImportReport.from_mapping(document))
        if (found.report.n_snapshots, found.report.n_videos) != (found.snapshots.num_rows, found.videos.num_rows):
            raise TrendFlowError("artifact_validation_failed", f"{_REPORT} is of other tables than those beside it.")
        return found

    def without(self, deleted: Container[tuple[str, str]]) -> SnapshotSet:
        """The same without the (platform_id, video_id) of `deleted`, in the tables and in the report."""
        report = self.report.without(lambda video_id: (platform_of(video_id), video_id) in deleted)
        gone = {key for key in _keys(self.videos) if key in deleted}
        if not gone:
            return SnapshotSet(self.snapshots, self.videos, report)
        snapshots, videos = (
            table.filter(pa.array([key not in gone for key in _keys(table)], pa.bool_())).combine_chunks()
            for table in (self.snapshots, self.videos)
        )
        report.counts["video_deleted"] += len(gone)
        report.n_videos, report.n_snapshots = videos.num_rows, snapshots.num_rows
        return SnapshotSet(snapshots, videos, report)


def _require_report(document: Any) -> None:
    problems = validate_document(SchemaRegistry.load(), REPORT_VERSION, document)
    if problems:
        raise TrendFlowError("artifact_validation_failed", f"{_REPORT} is not an import report: {problems[0]}")


def _keys(table: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(*(table[key].to_pylist() for key in KEY), strict=True)


def first_snapshots(snapshots: pa.Table, videos: pa.Table | None = None) -> pa.Table:
    """The earliest snapshot of every video: `platform_id video_id t0` and the six counters, sorted by video.

    `snapshots` may come in any order. With `videos`, only those that have a row there.
    """
    ordered = snapshots.select([*KEY, "snapshot_time", *COUNTERS]).sort_by(
        [("platform_id", "ascending"), ("video_id", "ascending"), ("snapshot_time", "ascending")]
    )
    first = ordered.filter(pa.array(starts(ordered)))
    if videos is not None:
        keys = videos.select(list(KEY))
        first = first.join(keys, keys=list(KEY), join_type="left semi").sort_by([(key, "ascending") for key in KEY])
    return first.rename_columns([*KEY, "t0", *COUNTERS]).combine_chunks()


def starts(ordered: pa.Table) -> np.ndarray:
    """bool [N]: rows of a table sorted by video at which another video begins."""
    begins = np.ones(ordered.num_rows, dtype=bool)
    if ordered.num_rows > 1:
        changes = [pc.not_equal(ordered[key][1:], ordered[key][:-1]) for key in KEY]
        begins[1:] = pc.or_(*changes).to_numpy()
    return begins


def _conforming(table: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    if not table.schema.equals(schema):
        raise TrendFlowError("artifact_validation_failed", f"The table for {name} has other columns than its schema.")
    return table.replace_schema_metadata(schema.metadata)


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    data = _bytes(path)
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowInvalid, OSError) as exc:
        raise TrendFlowError("artifact_validation_failed", f"{path.name} is not a Parquet file.") from exc
    version = (table.schema.metadata or {}).get(b"schema_version")
    if version != schema.metadata[b"schema_version"] or not table.schema.equals(schema):
        expected = schema.metadata[b"schema_version"].decode()
        raise TrendFlowError("artifact_validation_failed", f"{path.name} does not hold the table {expected}.")
    return table.cast(schema).combine_chunks()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as exc:
        raise TrendFlowError(
            "dependency_missing", f"There is no {path.name} in the snapshot folder; import snapshots.", kind="file"
        ) from exc
    except OSError as exc:
        raise TrendFlowError("artifact_validation_failed", f"{path.name} cannot be read.", errno=exc.errno) from exc


def _replace(path: Path, data: bytes) -> None:
    """Put a complete file in place of what is there."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def empty_metadata() -> dict[str, Any]:
    """The metadata columns of `videos_v1` with nothing known."""
    names = [field for field in VIDEOS_V1 if field.name not in (*KEY, "captured_at", "source")]
    return {field.name: float("nan") if field.type == pa.float64() else None for field in names}
