"""Which videos may have a row: published at a known time, first seen after that, of a known channel, not deleted."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from trendflow.dataset.snapshots.tables import SnapshotSet, first_snapshots
from trendflow.dataset.table.columns import PUBLISHED, ROW_KEY
from trendflow.dataset.table.enrichment import Enrichment
from trendflow.dataset.table.selection import Refusal, Video

_BATCH = 1024  # rows held as Python objects at once: a page has kilobytes of text


@dataclass(frozen=True)
class Eligible:
    """Videos that may have a row, in the order of their ids. `videos` and `first` are parallel to `keys`."""

    keys: tuple[Video, ...]
    videos: pa.Table
    first: pa.Table
    refused: tuple[Refusal, ...]

    def take(self, kept: Container[Video]) -> Eligible:
        """Those among `kept`."""
        rows = [row for row, key in enumerate(self.keys) if key in kept]
        keys = tuple(self.keys[row] for row in rows)
        return Eligible(keys, _rows_of(self.videos, rows), _rows_of(self.first, rows), self.refused)

    def rows(self) -> Iterator[tuple[Video, Mapping[str, Any], Mapping[str, Any]]]:
        """Key, row of `videos_v1` and row of `first_snapshots`, a bounded number of them in memory."""
        for start in range(0, len(self.keys), _BATCH):
            parts = (part.slice(start, _BATCH).to_pylist() for part in (self.videos, self.first))
            yield from zip(self.keys[start : start + _BATCH], *parts, strict=True)


def eligible_videos(snapshots: SnapshotSet, enrichment: Enrichment, tombstones: Container[Video]) -> Eligible:
    """Judge every video of the snapshots. A title, or a video's own id, never stands in for its channel."""
    order = [(key, "ascending") for key in ROW_KEY]
    first = first_snapshots(snapshots.snapshots, snapshots.videos).sort_by(order)
    videos = snapshots.videos.sort_by(order)
    looked_up = enrichment.rows()
    t0 = {_key(row): row["t0"] for row in first.select([*ROW_KEY, "t0"]).to_pylist()}
    keys: list[Video] = []
    rows: list[int] = []
    refused: list[Refusal] = []
    for at, video in enumerate(videos.select([*ROW_KEY, PUBLISHED, "channel_id"]).to_pylist()):
        key = _key(video)
        channel = video["channel_id"] or looked_up.get(key, {}).get("channel_id")
        reason = _reason(key, video[PUBLISHED], t0.get(key), channel, tombstones)
        if reason is None:
            keys.append(key)
            rows.append(at)
        else:
            refused.append(Refusal(*key, "", reason))
    kept = set(keys)
    of_kept = [at for at, key in enumerate(map(_key, first.select(list(ROW_KEY)).to_pylist())) if key in kept]
    return Eligible(tuple(keys), _rows_of(videos, rows), _rows_of(first, of_kept), tuple(refused))


def _rows_of(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    """An empty list has no type of its own, and a table cannot be asked for rows of no type."""
    return table.take(pa.array(rows, pa.int64()))


def _key(row: Mapping[str, Any]) -> Video:
    return row["platform_id"], row["video_id"]


def _reason(key: Video, published: Any, t0: Any, channel: str | None, tombstones: Container[Video]) -> str | None:
    if key in tombstones:
        return "tombstoned"
    if published is None:
        return "publish_time_missing"
    if t0 is None:
        return "no_first_snapshot"
    if t0 < published:
        return "negative_age"
    return None if channel else "channel_id_missing"
