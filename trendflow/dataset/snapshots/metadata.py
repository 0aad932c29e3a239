"""Metadata under the names the platform uses, in JSON shards and in what the collector stores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from trendflow.dataset.snapshots.observations import Metadata, Observations, metadata_tuple
from trendflow.dataset.snapshots.values import Values, utc_time

METADATA_KEYS = frozenset(
    {
        "publishedAt",
        "channelId",
        "channelTitle",
        "title",
        "description",
        "tags",
        "duration",
        "duration_seconds",
        "madeForKids",
        "chapters",
        "thumbnails",
        "thumbnails_ytdlp",
        "subtitles",
        "language",
        "categoryId",
        "definition",
        "caption",
    }
)


def platform_metadata(found: Any, video_id: str, into: Observations) -> Metadata:
    """Metadata from an object with any of `METADATA_KEYS`; what is missing or cannot be read is missing."""
    values = into.values
    if not isinstance(found, dict):
        return metadata_tuple({})
    chapters = values.size(found.get("chapters"), "chapter_count")
    return metadata_tuple(
        {
            "publish_time": utc_time(found.get("publishedAt")),
            "channel_id": values.channel_id(found.get("channelId"), video_id),
            "channel_title": values.text(found.get("channelTitle"), "channel_title"),
            "category_id": values.category(found.get("categoryId")),
            "title": values.text(found.get("title"), "title"),
            "description": values.text(found.get("description"), "description"),
            "tags": values.tags(found.get("tags")),
            "duration_seconds": values.duration(found.get("duration_seconds"), found.get("duration")),
            "made_for_kids": values.flag(found.get("madeForKids"), "made_for_kids"),
            "has_chapters": None if math.isnan(chapters) else chapters > 0,
            "chapter_count": chapters,
            "n_thumbnails": _thumbnails(found, into),
            "n_subtitle_langs": _languages(found.get("subtitles"), values),
            "language": values.word(found.get("language"), "language"),
            "definition": values.word(found.get("definition"), "definition"),
            "caption": values.flag(found.get("caption"), "caption"),
        }
    )


def _thumbnails(found: Mapping[str, Any], into: Observations) -> float:
    own = into.values.size(found.get("thumbnails"), "n_thumbnails")
    if math.isnan(own) and (other := found.get("thumbnails_ytdlp")) is not None:
        own = into.values.size(other, "n_thumbnails")
        into.report.add("thumbnails_from_ytdlp")
    return own


def _languages(subtitles: Any, values: Values) -> float:
    """Languages in an object {language: …}, or in a list of codes or of objects that name theirs."""
    if isinstance(subtitles, list):
        named = [item.get("language") or item.get("lang") if isinstance(item, dict) else item for item in subtitles]
        subtitles = sorted({code for code in named if isinstance(code, str)})
    return values.size(subtitles, "n_subtitle_langs")
