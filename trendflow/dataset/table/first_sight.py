"""One video as it was first seen: page, counters, channel and time, before any of it becomes a feature."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from trendflow.dataset.table.columns import CAPTURED, CHANNEL_SEEN, DOCUMENT_SEEN, FIRST_SEEN, PUBLISHED
from trendflow.dataset.table.metadata_features import (
    AGE,
    CHANNEL_COUNTERS,
    Value,
    age_bucket,
    metadata_features,
    without_document,
)

Row = Mapping[str, Any]


@dataclass(frozen=True)
class FirstSight:
    """`columns`: id columns and clocks; `features`: `METADATA_COLUMNS`.

    `document_late`: the page was captured too late to be known at the first snapshot, so nothing of it is used.
    `run_document_late`: the same of the text that came with the run, which is another copy of the page.
    `channel_from` and `channel_id_from`: where the channel's counters and its id come from, `snapshot`, `lookup` or,
    where unknown, an empty string.
    """

    columns: Mapping[str, Any]
    features: Mapping[str, Value]
    document_late: bool
    run_document_late: bool
    channel_from: str
    channel_id_from: str


def first_sight(
    video: Row,
    first: Row,
    tolerance_minutes: float,
    *,
    channel: Row | None = None,
    media_duration_seconds: float | None = None,
    run_created_at: datetime | None = None,
) -> FirstSight:
    """Put together what was known of a video at its first snapshot.

    `video` is a row of `videos_v1`, `first` its row of `first_snapshots`, `channel` its row of `channels_v1` if any.
    What was observed more than `tolerance_minutes` after the first snapshot is treated as unknown. `run_created_at` is
    when the video was handed in with its text; without it nothing that rests on that text is used.

    Raises `input_constraint_violated` without a publication time and for a snapshot before it.
    """
    limit = first["t0"] + timedelta(minutes=tolerance_minutes)
    counters, channel_seen, channel_from = _channel(first, channel, limit)
    features = metadata_features(video, {**first, **counters}, media_duration_seconds)
    captured = video.get(CAPTURED)
    late = _later(captured, limit)
    channel_id, channel_id_from = _channel_id(video, channel)
    return FirstSight(
        columns={
            "platform_id": video["platform_id"],
            "video_id": video["video_id"],
            "channel_id": channel_id,
            PUBLISHED: video["publish_time"],
            CAPTURED: captured,
            FIRST_SEEN: first["t0"],
            CHANNEL_SEEN: channel_seen,
            DOCUMENT_SEEN: run_created_at,
            "age_bucket": age_bucket(_float(features[AGE])),
            "mask_channel_statistics": bool(channel_from),
        },
        features=without_document(features) if late else features,
        document_late=late,
        run_document_late=_later(run_created_at, limit),
        channel_from=channel_from,
        channel_id_from=channel_id_from,
    )


def _channel_id(video: Row, channel: Row | None) -> tuple[str | None, str]:
    for row, source in ((video, "snapshot"), (channel or {}, "lookup")):
        if row.get("channel_id"):
            return row["channel_id"], source
    return None, ""


def _channel(first: Row, channel: Row | None, limit: datetime) -> tuple[Row, datetime | None, str]:
    """Counters of the channel, when they were observed, and where they come from: all from one source, or none."""
    names = tuple(CHANNEL_COUNTERS.values())
    if _known(first, names):
        return {}, first["t0"], "snapshot"
    if channel and channel["observed_at"] is not None and channel["observed_at"] <= limit and _known(channel, names):
        return {name: channel[name] for name in names}, channel["observed_at"], "lookup"
    return {}, None, ""


def _later(moment: datetime | None, limit: datetime) -> bool:
    return moment is None or moment > limit


def _known(row: Row, names: tuple[str, ...]) -> bool:
    return any(not math.isnan(_float(row.get(name))) for name in names)


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)
