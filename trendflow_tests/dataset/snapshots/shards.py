"""SYNTHETIC snapshot files in the accepted forms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trendflow.dataset.snapshots.importer import import_snapshots
from trendflow.dataset.snapshots.tables import SnapshotSet

T0 = "2026_01_10_12_00"
PUBLISHED = "2026-01-09T18:30:00Z"


def snapshot(time: str = T0, views: Any = "1000", likes: Any = "50", **more: Any) -> dict[str, Any]:
    return {
        "time_get": time,
        "viewCount": views,
        "likeCount": likes,
        "commentCount": "7",
        "subscriberCount": "900",
        "viewCount_channel": "123456",
        "videoCount": "42",
        **more,
    }


def metadata(**changes: Any) -> dict[str, Any]:
    return {
        "publishedAt": PUBLISHED,
        "channelId": "UC_synthetic_channel_0001",
        "channelTitle": "A SYNTHETIC channel",
        "title": "A title",
        "description": "First line\nsecond line",
        "tags": ["one", "two"],
        "duration": "PT2H6M5S",
        "madeForKids": False,
        "chapters": [{"title": "Intro"}, {"title": "End"}],
        "thumbnails": {"default": {}, "high": {}},
        "subtitles": {"en": [], "de": [], "fr": []},
        "language": "en",
        "categoryId": "28",
        **changes,
    }


def record(*snapshots: Any, **changes: Any) -> dict[str, Any]:
    """A record of form A with the snapshots under their numbers."""
    return {"metadata": metadata(**changes), **{f"snapshot_{at}": found for at, found in enumerate(snapshots)}}


def write(folder: Path, shard: Mapping[str, Any], name: str = "shard.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(shard))
    return path


def imported(folder: Path, shard: Mapping[str, Any]) -> SnapshotSet:
    return import_snapshots([write(folder, shard)])


def counted(found: SnapshotSet) -> dict[str, int]:
    """Rules that were applied, with their counts."""
    return {rule: n for rule, n in found.report.as_dict()["counts"].items() if n}
