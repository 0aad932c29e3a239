"""One video as it was first seen: its page and its first numbers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

PUBLISHED = datetime(2026, 1, 3, 22, 30, tzinfo=UTC)  # a Saturday
T0 = PUBLISHED + timedelta(hours=30)
VIDEO: dict[str, Any] = {
    "platform_id": "upload",
    "video_id": "a-video",
    "channel_id": "a-channel",
    "publish_time": PUBLISHED,
    "captured_at": T0,
    "title": "WHY is this so long?",
    "description": "e\u0301te\u0301",  # five code points, three in NFC
    "tags": ["a", "b", "c"],
    "duration_seconds": 61.5,
    "made_for_kids": False,
    "has_chapters": True,
    "chapter_count": 4.0,
    "n_thumbnails": 5.0,
    "n_subtitle_langs": 0.0,
    "category_id": "22",
    "language": "en",
}
FIRST: dict[str, Any] = {
    "t0": T0,
    "views": 2000.0,
    "likes": 100.0,
    "comments": 10.0,
    "channel_subscribers": 5.0,
    "channel_views": 7.0,
    "channel_videos": 9.0,
}
