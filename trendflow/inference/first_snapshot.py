"""The first snapshot of one video, from a file of any accepted form or from values as a person types them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.snapshots.importer import import_snapshots
from trendflow.dataset.snapshots.tables import COUNTERS, SnapshotSet, empty_metadata, first_snapshots

_TIMES = {"at": "t0", "published": "publish_time"}
_NUMBERS = (*COUNTERS, "duration_seconds", "chapter_count", "n_thumbnails", "n_subtitle_langs")
_FLAGS = ("made_for_kids", "has_chapters")
_TEXTS = ("category_id", "language", "channel_id", "title", "description")
VALUE_NAMES = (*_TIMES, *_NUMBERS, *_FLAGS, *_TEXTS)
"""What `from_values` takes; `at` and `published` are times."""

LARGEST_COUNT = 1e13
"""Above any counter of the platform by a factor of thirty: the most-watched channel has 3e11 views in all."""
CLOCK_SKEW = timedelta(minutes=5)
"""How far the clock of whoever took a snapshot may be ahead."""

_PAIR = re.compile(r"\s*(?P<name>[a-z_0-9]+)\s*=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class FirstSnapshot:
    """A row of `videos_v1` and its row of `first_snapshots`; `channel`: its row of `channels_v1`, where it has one."""

    video: Mapping[str, Any]
    first: Mapping[str, Any]
    channel: Mapping[str, Any] | None = None


def from_set(found: SnapshotSet, platform_id: str, video_id: str) -> FirstSnapshot | None:
    """The first snapshot of a video in imported tables; None when they hold none."""
    rows = []
    for table in (found.videos, found.snapshots):
        mine = pc.and_(pc.equal(table["platform_id"], platform_id), pc.equal(table["video_id"], video_id))
        rows.append(table.filter(mine))
    videos, snapshots = rows
    if not videos.num_rows or not snapshots.num_rows:
        return None
    return FirstSnapshot(videos.to_pylist()[0], first_snapshots(snapshots).to_pylist()[0])


def from_file(path: Path, platform_id: str, video_id: str) -> FirstSnapshot | None:
    """The first snapshot of a video in a JSON shard, a Parquet or CSV table, or a folder of imported tables.

    None when it holds no snapshot of the video. Raises what importing raises.
    """
    found = SnapshotSet.read(path) if path.is_dir() else import_snapshots([path])
    return from_set(found, platform_id, video_id)


def from_values(text: str, platform_id: str, video_id: str) -> FirstSnapshot:
    """A snapshot as `views=1200,likes=30,published=2026-03-01T12:00Z,at=2026-03-02T12:00Z`; the rest is unknown.

    Times are ISO 8601 and in UTC unless they say otherwise. Texts may not hold a comma here; a file may. Raises
    `config_invalid` for what cannot be read and `input_constraint_violated` for a number that is no count, both with
    the name of the value and not the value.
    """
    values: dict[str, str] = {}
    for part in text.split(","):
        pair = _PAIR.fullmatch(part)
        if pair is None or pair["name"] not in VALUE_NAMES or pair["name"] in values:
            raise TrendFlowError(
                "config_invalid",
                f"A snapshot is written as name=value, divided by commas, each name once, of {', '.join(VALUE_NAMES)}.",
            )
        values[pair["name"]] = pair["value"].strip()
    missing = [name for name in ("at", "published", "views") if name not in values]
    if missing:
        raise TrendFlowError("config_invalid", f"A snapshot needs {', '.join(missing)}.")
    read: dict[str, Any] = {target: _time(name, values[name]) for name, target in _TIMES.items()}
    read |= {name: _number(name, values[name]) for name in _NUMBERS if name in values}
    read |= {name: _flag(name, values[name]) for name in _FLAGS if name in values}
    read |= {name: values[name] for name in _TEXTS if name in values}
    first = {"t0": read.pop("t0"), **{name: read.pop(name, float("nan")) for name in COUNTERS}}
    ids = {"platform_id": platform_id, "video_id": video_id}
    page = {**empty_metadata(), **read, "captured_at": first["t0"], "source": "values"}
    return FirstSnapshot({**ids, **page}, {**ids, **first})


def require_possible(snapshot: FirstSnapshot, now: datetime) -> None:
    """Raises `input_constraint_violated` for a snapshot that nobody can have taken by `now`: of the future, or with
    counts beyond any that exist. NaN stands for a count that is unknown."""
    if snapshot.first["t0"] > now + CLOCK_SKEW:
        raise TrendFlowError("input_constraint_violated", "The first snapshot lies in the future.")
    for name in COUNTERS:
        if not math.isnan(snapshot.first[name]):
            _require_count(name, snapshot.first[name])


def _require_count(name: str, value: float) -> None:
    if not 0 <= value <= LARGEST_COUNT:
        raise TrendFlowError(
            "input_constraint_violated",
            f"The value {name!r} of the first snapshot is negative or larger than any count.",
        )


def _time(name: str, value: str) -> datetime:
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise TrendFlowError("config_invalid", f"The time {name!r} of the snapshot is not ISO 8601.") from exc


def _number(name: str, value: str) -> float:
    try:
        found = float(value)
    except ValueError as exc:
        raise TrendFlowError("config_invalid", f"The value {name!r} of the snapshot is not a number.") from exc
    if math.isnan(found):
        raise TrendFlowError("input_constraint_violated", f"The value {name!r} of the first snapshot is not a number.")
    _require_count(name, found)
    return found


def _flag(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise TrendFlowError("config_invalid", f"The value {name!r} of the snapshot is true or false.")
    return value.lower() == "true"
