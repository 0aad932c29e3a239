"""What a platform shows about a video at its first snapshot, as features of one row.

Training tables and forecasts call the same function, so a feature cannot mean two things. It takes the first snapshot
alone: later ones are out of its reach, hence deleting them changes nothing.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from trendflow.components.text._lexical import title_features
from trendflow.components.text._text_form import plain
from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.table.columns import CAPTURED, CHANNEL_SEEN, FIRST_SEEN, METADATA, ColumnProvenance
from trendflow.dataset.targets import HIDDEN_LIKES_MIN_VIEWS

NAN = float("nan")
AGE_BUCKETS = ("<24h", "1-30d", ">30d")
_DAY_H, _MONTH_H = 24.0, 720.0

Row = Mapping[str, Any]
Value = float | str | None

COUNTERS = {"views_0": "views", "likes_0": "likes", "comments_0": "comments"}
CHANNEL_COUNTERS = {
    "channel_subscribers_0": "channel_subscribers",
    "channel_total_views_0": "channel_views",
    "channel_total_videos_0": "channel_videos",
}
RATES = ("likes_per_view_0", "comments_per_view_0")
AGE = "video_age_hours_at_snapshot1"
TEMPORAL = (AGE, "publish_hour_utc", "publish_weekday_utc")
_TITLE = {
    "title_word_count": "tp_lex_title_len_words",
    "title_has_question": "tp_lex_title_has_question",
    "title_upper_ratio": "tp_lex_title_upper_ratio",
}
DOCUMENT = ("title_len", *_TITLE, "description_len", "tag_count")
_DECLARED = ("made_for_kids", "has_chapters", "chapter_count", "n_thumbnails", "n_subtitle_langs")
CATEGORICAL = ("category_id", "language")
CAPTURED_WITH_DOCUMENT = ("duration_seconds", *DOCUMENT, *_DECLARED, *CATEGORICAL)
"""Columns that describe the video's page as it was captured, so they count as observed then."""

METADATA_COLUMNS = (*COUNTERS, *CHANNEL_COUNTERS, *RATES, *TEMPORAL, *CAPTURED_WITH_DOCUMENT)


def metadata_features(video: Row, first: Row, media_duration_seconds: float | None = None) -> dict[str, Value]:
    """`METADATA_COLUMNS` of one video; numbers are float with NaN, categories text with None, where unknown.

    `video` is a row of `videos_v1` and `first` its row of `first_snapshots` (`t0` and counters as of then), both as
    `to_pylist` gives them. `media_duration_seconds` of the decoded video stands in for a page that does not state one.

    Counters of zero likes at more than 10 000 views are hidden ones and unknown. A title that is there and empty has
    length 0; one that was not captured is unknown. Lengths are in characters of NFC text, words those of UAX #29.

    Raises `input_constraint_violated` without `publish_time` or `t0`, and for a first snapshot before publication.
    """
    counters = {name: _number(first.get(source)) for name, source in {**COUNTERS, **CHANNEL_COUNTERS}.items()}
    if counters["likes_0"] == 0 and counters["views_0"] > HIDDEN_LIKES_MIN_VIEWS:
        counters["likes_0"] = NAN
    views = counters["views_0"]
    published = video.get("publish_time")
    return {
        **counters,
        "likes_per_view_0": counters["likes_0"] / views if views else NAN,
        "comments_per_view_0": counters["comments_0"] / views if views else NAN,
        AGE: age_hours(published, first.get("t0")),
        "publish_hour_utc": float(published.hour) if published else NAN,
        "publish_weekday_utc": float(published.weekday()) if published else NAN,
        "duration_seconds": _first_known(video.get("duration_seconds"), media_duration_seconds),
        **_title(video.get("title")),
        "description_len": NAN if video.get("description") is None else float(_length(video["description"])),
        "tag_count": NAN if video.get("tags") is None else float(len(video["tags"])),
        **{name: _number(video.get(name)) for name in _DECLARED},
        **{name: _category(video.get(name)) for name in CATEGORICAL},
    }


def age_hours(publish_time: datetime | None, t0: datetime | None) -> float:
    """Age of a video at its first snapshot, in hours. Errors as in `metadata_features`."""
    if publish_time is None or t0 is None:
        raise TrendFlowError("input_constraint_violated", "A video needs publish_time and the time of a snapshot.")
    hours = (t0 - publish_time).total_seconds() / 3600
    if hours < 0:
        raise TrendFlowError("input_constraint_violated", "The first snapshot lies before publication.", hours=hours)
    return hours


def age_bucket(hours: float) -> str:
    """One of `AGE_BUCKETS`: [0, 24) h, [24, 720] h, above."""
    if hours < _DAY_H:
        return AGE_BUCKETS[0]
    return AGE_BUCKETS[1] if hours <= _MONTH_H else AGE_BUCKETS[2]


def without_document(row: Mapping[str, Value]) -> dict[str, Value]:
    """`row` with everything unknown that was captured with the document: for a page seen too late to be known at t0."""
    missing = {name: None if name in CATEGORICAL else NAN for name in CAPTURED_WITH_DOCUMENT}
    return {**row, **missing}


def metadata_provenance() -> list[ColumnProvenance]:
    """Provenance of `METADATA_COLUMNS`."""
    captured = [ColumnProvenance(name, "document", CAPTURED, METADATA, METADATA) for name in CAPTURED_WITH_DOCUMENT]
    channel = [ColumnProvenance(name, "snapshot", CHANNEL_SEEN, METADATA, METADATA) for name in CHANNEL_COUNTERS]
    seen = [
        ColumnProvenance(name, "snapshot", FIRST_SEEN, METADATA, METADATA) for name in (*COUNTERS, *RATES, *TEMPORAL)
    ]
    return [*captured, *channel, *seen]


def _number(value: Any) -> float:
    return NAN if value is None else float(value)


def _first_known(*values: float | None) -> float:
    return next((float(value) for value in values if value is not None and math.isfinite(value)), NAN)


def _category(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _length(text: str) -> int:
    return len(unicodedata.normalize("NFC", text))


def _title(title: str | None) -> dict[str, Value]:
    if title is None:
        return {"title_len": NAN, **dict.fromkeys(_TITLE, NAN)}
    found = title_features(plain(title))
    return {"title_len": float(_length(title)), **{name: found[source] for name, source in _TITLE.items()}}
