"""Channels of videos whose snapshots do not state them, looked up on the platform and kept as a table.

A look-up depends on the day it is made. It is therefore an input of a build, as the snapshots are, and no part of it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.collector.channel_statistics import ChannelStatistics
from trendflow.dataset.collector.quota import Clock, utc_clock
from trendflow.dataset.parquet import parquet_bytes
from trendflow.dataset.snapshots.tables import SnapshotSet, first_snapshots
from trendflow.dataset.table.columns import ROW_KEY, TIME
from trendflow.dataset.table.feature_spec import MAX_TOLERANCE_MINUTES
from trendflow.dataset.table.metadata_features import CHANNEL_COUNTERS

_STATISTICS = tuple(CHANNEL_COUNTERS.values())

CHANNELS_V1 = pa.schema(
    [
        pa.field("platform_id", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("channel_id", pa.string()),
        *(pa.field(name, pa.float64(), nullable=False) for name in _STATISTICS),
        pa.field("observed_at", TIME),
    ],
    metadata={"schema_version": "channels_v1"},
)
"""One row per video, sorted: its channel as the platform names it, and the channel's counters when they were asked."""

_YOUTUBE = "youtube"


class Lookup(Protocol):
    """The platform API, batched, cached and within its quota. What it does not know is not in its answer."""

    def channel_ids(self, video_ids: Iterable[str]) -> Mapping[str, str]: ...

    def statistics(self, channel_ids: Iterable[str]) -> Mapping[str, ChannelStatistics]: ...


@dataclass(frozen=True)
class Enrichment:
    """A table of the form `CHANNELS_V1`."""

    table: pa.Table

    @classmethod
    def none(cls) -> Enrichment:
        return cls(CHANNELS_V1.empty_table())

    @classmethod
    def read(cls, path: Path) -> Enrichment:
        """Raises `config_invalid` when `path` is no such table."""
        try:
            table = pq.read_table(pa.BufferReader(path.read_bytes()))
        except (OSError, pa.ArrowInvalid) as exc:
            raise TrendFlowError("config_invalid", f"The table of channels {path.name!r} cannot be read.") from exc
        if not table.schema.equals(CHANNELS_V1):
            raise TrendFlowError("config_invalid", f"{path.name!r} is no table of the form channels_v1.")
        return cls(table)

    def without(self, deleted: Container[tuple[str, str]]) -> Enrichment:
        """The same without the (platform_id, video_id) of `deleted`, sorted by video."""
        kept = [row for key, row in sorted(self.rows().items()) if key not in deleted]
        return Enrichment(pa.Table.from_pylist(kept, schema=CHANNELS_V1))

    def to_parquet(self) -> bytes:
        return parquet_bytes(self.table)

    def rows(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(row["platform_id"], row["video_id"]): row for row in self.table.to_pylist()}


def look_up_channels(snapshots: SnapshotSet, lookup: Lookup, clock: Clock = utc_clock) -> Enrichment:
    """Ask the platform for what the first snapshots of its videos lack: the channel, or the channel's counters.

    Counters are asked for soon after the first snapshot only: no build takes any that was observed later than every
    leakage policy allows, and each costs quota. Raises what the look-up raises.
    """
    channel_of = {
        row["video_id"]: row["channel_id"]
        for row in snapshots.videos.select([*ROW_KEY, "channel_id"]).to_pylist()
        if row["platform_id"] == _YOUTUBE
    }
    unknown = sorted(video for video, channel in channel_of.items() if not channel)
    named = lookup.channel_ids(unknown) if unknown else {}
    oldest = clock() - timedelta(minutes=MAX_TOLERANCE_MINUTES)
    silent = sorted(video for video in without_statistics(snapshots, oldest) if video in channel_of)
    channels = {video: channel_of[video] or named.get(video) for video in {*unknown, *silent}}
    asked = sorted({channel for video in silent if (channel := channels[video])})
    statistics = lookup.statistics(asked) if asked else {}
    rows = (_row(video, channel, statistics.get(channel or "")) for video, channel in sorted(channels.items()))
    return Enrichment(pa.Table.from_pylist(list(rows), schema=CHANNELS_V1))


def without_statistics(snapshots: SnapshotSet, since: datetime | None = None) -> Sequence[str]:
    """Videos whose first snapshot, taken at `since` or later, states none of the channel's counters."""
    first = first_snapshots(snapshots.snapshots, snapshots.videos)
    if since is not None:
        first = first.filter(pc.greater_equal(first["t0"], pa.scalar(since, first["t0"].type)))
    known = np.zeros(first.num_rows, dtype=bool)
    for name in _STATISTICS:
        known |= ~np.isnan(first[name].to_numpy())
    return first["video_id"].filter(pa.array(~known)).to_pylist()


def _row(video: str, channel: str | None, found: ChannelStatistics | None) -> dict[str, Any]:
    values = (found.subscribers, found.views, found.videos) if found else (float("nan"),) * len(_STATISTICS)
    return {
        "platform_id": _YOUTUBE,
        "video_id": video,
        "channel_id": channel,
        **dict(zip(_STATISTICS, values, strict=True)),
        "observed_at": found.observed_at if found else None,
    }
