"""Long tables, form D: Parquet or CSV with one row per (video, time), read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.snapshots.csv_quotes import checked_header
from trendflow.dataset.snapshots.observations import Metadata, Observations, is_video_id, metadata_tuple
from trendflow.dataset.snapshots.tables import COUNTERS, UTC_TIME
from trendflow.dataset.snapshots.values import utc_time

_REQUIRED = ("video_id", "snapshot_time")
_METADATA = (
    "publish_time",
    "channel_id",
    "channel_title",
    "category_id",
    "title",
    "tags",
    "duration_s",
    "language",
    "definition",
    "caption",
)
_COLUMNS = (*_REQUIRED, *COUNTERS, *_METADATA, "source")
_BATCH = 8192


def read_parquet(file: BinaryIO, name: str, into: Observations) -> None:
    """Add the rows of a Parquet file. Raises `artifact_validation_failed` for a file that is none."""
    try:
        parquet = pq.ParquetFile(file)
        names = parquet.schema_arrow.names
        present = _present(names, name)
        _read((batch.to_pydict() for batch in _batches(parquet, present)), present, _ignored(names), name, into)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as exc:
        raise TrendFlowError("artifact_validation_failed", f"{name} is not a readable Parquet file.") from exc


def read_csv(file: BinaryIO, name: str, into: Observations) -> None:
    """Add the rows of a CSV file with a header, in UTF-8. A row with another number of fields is counted and left out.

    Raises `artifact_validation_failed` for a file that is none, `input_constraint_violated` where its quotes are not in
    order.
    """
    where = {"source": name}

    def malformed(row: pa_csv.InvalidRow) -> str:
        into.report.add("record_malformed", where if row.number is None else {**where, "line": row.number})
        return "skip"

    try:
        names = checked_header(file, name)
        present = _present(names, name)
        reader = pa_csv.open_csv(
            file,
            read_options=pa_csv.ReadOptions(use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=malformed),
            # Every value arrives as written: a type guessed from the first rows would fail at a later one.
            convert_options=pa_csv.ConvertOptions(
                include_columns=present,
                column_types=dict.fromkeys(present, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
        _read((batch.to_pydict() for batch in reader), present, _ignored(names), name, into)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        # Without the cause: it quotes the row.
        raise TrendFlowError("artifact_validation_failed", f"{name} is not a readable CSV file in UTF-8.") from None


def _batches(parquet: pq.ParquetFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
    for batch in parquet.iter_batches(batch_size=_BATCH, columns=columns, use_threads=False):
        # Python's datetime ends at microseconds.
        yield pa.RecordBatch.from_arrays(
            [
                column.cast(UTC_TIME if column.type.tz else pa.timestamp("us"), safe=False)
                if pa.types.is_timestamp(column.type)
                else column
                for column in batch.columns
            ],
            names=batch.schema.names,
        )


def _present(names: list[str], name: str) -> list[str]:
    missing = [column for column in _REQUIRED if column not in names]
    if missing:
        raise TrendFlowError(
            "artifact_validation_failed", f"{name} has no column {' and no '.join(missing)}.", columns=missing
        )
    twice = [column for column in _COLUMNS if names.count(column) > 1]
    if twice:  # nothing says which of them is meant
        raise TrendFlowError("artifact_validation_failed", f"{name} has the column {twice[0]} twice.", columns=twice)
    return [column for column in _COLUMNS if column in names]


def _ignored(names: list[str]) -> list[str]:
    return sorted(set(names) - set(_COLUMNS))


def _read(
    batches: Iterator[Mapping[str, list[Any]]], present: list[str], ignored: list[str], name: str, into: Observations
) -> None:
    raw_columns = [column for column in _METADATA if column in present]
    last: dict[str, tuple[tuple[Any, ...], Metadata]] = {}
    seen = kept = 0
    for batch in batches:
        nothing = [None] * len(batch["video_id"])
        counters = [batch.get(column, nothing) for column in COUNTERS]
        metadata = list(zip(*(batch[column] for column in raw_columns), strict=True)) or [()] * len(nothing)
        sources = batch.get("source", nothing)
        rows = zip(
            batch["video_id"], batch["snapshot_time"], zip(*counters, strict=True), metadata, sources, strict=True
        )
        for row, (video_id, moment, numbers, raw, source) in enumerate(rows, seen):
            where = {"source": name, "source_row": row}
            if not is_video_id(video_id):
                into.report.add("record_malformed", where)
                continue
            into.saw_video(video_id)
            time = utc_time(moment)
            if time is None:
                into.report.add("snapshot_time_bad", {"video_id": video_id, **where})
                continue
            known = last.get(video_id)
            if known is None or known[0] != raw:
                known = last[video_id] = (raw, _metadata(dict(zip(raw_columns, raw, strict=True)), video_id, into))
            values = [into.values.counter(value, column) for column, value in zip(COUNTERS, numbers, strict=True)]
            named = source if isinstance(source, str) and source else name
            into.add(video_id, time, values, known[1], named, row)
            kept += 1
        seen += len(nothing)
    source = {"name": name, "records": {"D": seen}, "snapshots": kept}
    into.report.sources.append({**source, "ignored_columns": ignored} if ignored else source)


def _metadata(raw: Mapping[str, Any], video_id: str, into: Observations) -> Metadata:
    values = into.values
    return metadata_tuple(
        {
            "publish_time": utc_time(raw.get("publish_time")),
            "channel_id": values.channel_id(raw.get("channel_id"), video_id),
            "channel_title": values.text(raw.get("channel_title"), "channel_title"),
            "category_id": values.category(raw.get("category_id")),
            "title": values.text(raw.get("title"), "title"),
            "tags": values.tags(raw.get("tags")),
            "duration_seconds": values.duration(raw.get("duration_s"), None),
            "language": values.word(raw.get("language"), "language"),
            "definition": values.word(raw.get("definition"), "definition"),
            "caption": values.flag(raw.get("caption"), "caption"),
        }
    )
