"""Observations from all inputs, put in order: duplicates, snapshots before publication, first snapshots.

Held compactly, a few dozen bytes per snapshot and each distinct metadata of a video once; what the inputs contain
beside that is never kept.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import numpy as np
import pyarrow as pa

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.identity import platform_of
from trendflow.dataset.snapshots.report import ImportReport
from trendflow.dataset.snapshots.tables import COUNTERS, KEY, SNAPSHOTS_V1, VIDEOS_V1, SnapshotSet, empty_metadata
from trendflow.dataset.snapshots.values import Values

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MICROSECOND = timedelta(microseconds=1)
_EPOCH_MIN = np.iinfo(np.int64).min

METADATA = tuple(empty_metadata())
"""Names of the metadata columns, in the order of a metadata tuple."""

_PUBLISHED = METADATA.index("publish_time")

Metadata = tuple[Any, ...]


def is_video_id(value: Any) -> bool:
    return isinstance(value, str) and _ID.match(value) is not None


def metadata_tuple(values: Mapping[str, Any]) -> Metadata:
    """Metadata in column order; what `values` leaves out is missing."""
    return tuple({**empty_metadata(), **values}.values())


class _Names:
    """Names by number, in order of appearance."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._index: dict[str, int] = {}

    def index(self, name: str) -> int:
        found = self._index.setdefault(name, len(self.names))
        if found == len(self.names):
            self.names.append(name)
        return found


class Observations:
    """Collects snapshots of one import; `finish` makes the tables. The order of inputs does not matter.

    `values` reads single values into `report`, which `finish` completes.
    """

    def __init__(self) -> None:
        self.report = ImportReport()
        self.values = Values(self.report)
        self._videos, self._sources = _Names(), _Names()
        self._metadata: list[Metadata] = []
        self._known: dict[tuple[int, bytes], int] = {}
        self._last: dict[int, tuple[Metadata, int]] = {}
        # One array per column instead of one object per snapshot: a tenth of the memory.
        self._of_video, self._of_source, self._of_metadata = array("q"), array("q"), array("q")
        self._time, self._row = array("q"), array("q")
        self._counters = array("d")

    def __len__(self) -> int:
        return len(self._time)

    def add(
        self, video_id: str, time: datetime, counters: Sequence[float], metadata: Metadata, source: str, row: int
    ) -> None:
        """One snapshot. `counters` in the order of `COUNTERS`, `metadata` as its source showed it at that time."""
        video = self._videos.index(video_id)
        self._of_video.append(video)
        self._of_source.append(self._sources.index(source))
        self._of_metadata.append(self._intern(video, metadata))
        self._time.append((time - _EPOCH) // _MICROSECOND)
        self._row.append(row)
        self._counters.extend(counters)

    def saw_video(self, video_id: str) -> None:
        """Register a video even if none of its snapshots can be used."""
        self._videos.index(video_id)

    def finish(self) -> SnapshotSet:
        """Apply the rules that need all snapshots, and build both tables."""
        ids = self._videos.names
        by_name = np.array(sorted(range(len(ids)), key=lambda at: (platform_of(ids[at]), ids[at])), dtype=np.int64)
        names = np.array([(platform_of(ids[at]), ids[at]) for at in by_name], dtype=object).reshape(-1, 2)
        rank = np.argsort(by_name)
        video = rank[_numbers(self._of_video)]
        order = np.lexsort((_numbers(self._row), _numbers(self._time), video))
        order = self._published(order)
        order = self._unique(order, video)
        chosen = video[order]
        first = np.ones(len(order), dtype=bool)
        first[1:] = chosen[1:] != chosen[:-1]
        for position in np.setdiff1d(np.arange(len(names)), chosen):
            self.report.add("video_without_snapshot", dict(zip(KEY, names[position], strict=True)))
        snapshots = self._snapshot_table(order, names[chosen])
        videos = self._video_table(order[first], names[chosen[first]])
        self.report.n_videos, self.report.n_snapshots = videos.num_rows, snapshots.num_rows
        return SnapshotSet(snapshots, videos, self.report)

    def _intern(self, video: int, metadata: Metadata) -> int:
        last = self._last.get(video)
        if last is not None and last[0] is metadata:
            return last[1]
        key = (video, sha256(_canonical(metadata)).digest())
        index = self._known.get(key)
        if index is None:
            index = self._known[key] = len(self._metadata)
            self._metadata.append(metadata)
        self._last[video] = (metadata, index)
        return index

    def _published(self, order: np.ndarray) -> np.ndarray:
        """Drop snapshots before the publication that their own source names."""
        times = [found[_PUBLISHED] for found in self._metadata]
        published = np.array([_EPOCH_MIN if time is None else (time - _EPOCH) // _MICROSECOND for time in times])
        early = _numbers(self._time) < published[_numbers(self._of_metadata)] if len(self) else np.zeros(0, dtype=bool)
        for index in order[early[order]]:
            self.report.add("before_publication", self._place(index))
        by_video: dict[int, set[Any]] = {}
        for (video, _), index in self._known.items():
            by_video.setdefault(video, set()).add(times[index])
        for video, found in by_video.items():
            if len(found - {None}) > 1:
                self.report.add("publish_time_changed", {"video_id": self._videos.names[video]})
        return order[~early[order]]

    def _unique(self, order: np.ndarray, video: np.ndarray) -> np.ndarray:
        """One row per (video, time): of equal rows the last, of contradicting ones none."""
        times = _numbers(self._time)
        same = (video[order][1:] == video[order][:-1]) & (times[order][1:] == times[order][:-1])
        if not same.any():
            return order
        keep = np.ones(len(order), dtype=bool)
        group = np.concatenate([[0], np.cumsum(~same)])
        repeated = np.flatnonzero(np.bincount(group) > 1)
        for number in repeated:
            begin, end = np.searchsorted(group, [number, number + 1])
            keep[begin:end] = False
            counters = np.array([self._counters_of(index) for index in order[begin:end]])
            if (np.isclose(counters, counters[0], rtol=0, atol=0, equal_nan=True)).all():
                keep[begin + max(range(end - begin), key=lambda at: self._recency(order[begin + at]))] = True
                self.report.counts["duplicate_equal"] += int(end - begin) - 1
            else:
                rows = sorted(
                    f"{where['source']}:{where['source_row']}" for where in map(self._place, order[begin:end])
                )
                where = self._place(order[begin])
                self.report.add(
                    "duplicate_conflict",
                    {"video_id": where["video_id"], "snapshot_time": where["snapshot_time"], "rows": rows},
                )
        return order[keep]

    def _recency(self, index: int) -> tuple[str, int, bytes]:
        """Sorts equal rows by their place, so that the order of the inputs on a command line decides nothing."""
        where = self._place(index)
        return where["source"], where["source_row"], _canonical(self._metadata[self._of_metadata[index]])

    def _place(self, index: int) -> dict[str, Any]:
        return {
            "video_id": self._videos.names[self._of_video[index]],
            "snapshot_time": (_EPOCH + self._time[index] * _MICROSECOND).isoformat(),
            "source": self._sources.names[self._of_source[index]],
            "source_row": self._row[index],
        }

    def _counters_of(self, index: int) -> array[float]:
        return self._counters[index * len(COUNTERS) : (index + 1) * len(COUNTERS)]

    def _snapshot_table(self, order: np.ndarray, names: np.ndarray) -> pa.Table:
        counters = np.frombuffer(self._counters, dtype=np.float64).reshape(-1, len(COUNTERS))[order]
        columns = [
            pa.array(names[:, 0], pa.string()),
            pa.array(names[:, 1], pa.string()),
            pa.array(_numbers(self._time)[order]).cast(SNAPSHOTS_V1.field("snapshot_time").type),
            *(pa.array(np.ascontiguousarray(column)) for column in counters.T),
            pa.array(np.array(self._sources.names, dtype=object)[_numbers(self._of_source)[order]], pa.string()),
            pa.array(_numbers(self._row)[order]),
        ]
        return pa.Table.from_arrays(columns, schema=SNAPSHOTS_V1)

    def _video_table(self, first: np.ndarray, names: np.ndarray) -> pa.Table:
        metadata = [self._metadata[index] for index in _numbers(self._of_metadata)[first]]
        for (_, video_id), found in zip(names, metadata, strict=True):
            if found[_PUBLISHED] is None:
                self.report.add("publish_time_missing", {"video_id": video_id})
        sources = self._sources.names
        values: dict[str, Any] = {
            "platform_id": names[:, 0],
            "video_id": names[:, 1],
            **{name: [row[at] for row in metadata] for at, name in enumerate(METADATA)},
            "captured_at": pa.array(_numbers(self._time)[first]).cast(VIDEOS_V1.field("captured_at").type),
            "source": [sources[index] for index in _numbers(self._of_source)[first]],
        }
        columns = [
            values[field.name] if isinstance(values[field.name], pa.Array) else pa.array(values[field.name], field.type)
            for field in VIDEOS_V1
        ]
        return pa.Table.from_arrays(columns, schema=VIDEOS_V1)


def _numbers(values: array[int]) -> np.ndarray:
    return np.frombuffer(values, dtype=np.int64) if values else np.zeros(0, dtype=np.int64)


def _canonical(metadata: Metadata) -> bytes:
    # NaN is no JSON; no metadata is negative, so −1 is free to stand for it.
    plain = [
        -1 if value != value else value.isoformat() if isinstance(value, datetime) else value for value in metadata
    ]
    return canonical_json(plain)
