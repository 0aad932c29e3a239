"""Feature columns in words, for people who have never seen the table."""

from __future__ import annotations

from collections.abc import Mapping

from trendflow.inference.encoding import column_of

_METADATA: Mapping[str, str] = {
    "views_0": "Views at the first snapshot",
    "likes_0": "Likes at the first snapshot",
    "comments_0": "Number of comments at the first snapshot",
    "channel_subscribers_0": "Subscribers of the channel",
    "channel_total_views_0": "Views of the whole channel",
    "channel_total_videos_0": "Videos of the channel",
    "video_age_hours_at_snapshot1": "Age at the first snapshot (h)",
    "publish_hour_utc": "Hour of publication (UTC)",
    "publish_weekday_utc": "Weekday of publication",
    "duration_seconds": "Duration (s)",
    "title_len": "Length of the title",
    "title_word_count": "Words in the title",
    "title_has_question": "Title asks a question",
    "title_upper_ratio": "Capitals in the title",
    "description_len": "Length of the description",
    "tag_count": "Number of tags",
    "made_for_kids": "Made for kids",
    "has_chapters": "Has chapters",
    "chapter_count": "Number of chapters",
    "n_thumbnails": "Number of thumbnails",
    "n_subtitle_langs": "Languages of subtitles",
    "likes_per_view_0": "Likes per view",
    "comments_per_view_0": "Comments per view",
    "category_id": "Category",
    "language": "Language",
}

_COMPONENTS: Mapping[str, str] = {"clap_extractor": "Sound (CLAP)", "core_clip": "Picture (CLIP)"}

_WORDS: Mapping[str, str] = {"tp": "", "lex": "", "len": "length", "std": "spread", "avg": "average", "frac": "share"}
"""Abbreviations of keys; prefixes that only tell extractors apart vanish."""

_STATISTICS: Mapping[str, str] = {
    "value": "",
    "mean": "mean",
    "std": "spread",
    "min": "smallest",
    "max": "largest",
    "p50": "median",
    "p90": "90th percentile",
}
_UNITS: Mapping[str, str] = {
    "s": "(s)",
    "ms": "(ms)",
    "db": "(dB)",
    "lufs": "(LUFS)",
    "dbfs": "(dBFS)",
    "hz": "(Hz)",
    "bpm": "(BPM)",
}


def plain_name(feature: str) -> str:
    """A feature in words: metadata by its meaning, content as "Cut detection: cuts per minute, median"."""
    known = _METADATA.get(feature)
    if known is not None:
        return known
    column = column_of(feature)
    component, _, rest = column.partition("__")
    title = _COMPONENTS.get(component)
    component = component.removeprefix("core_").removesuffix("_extractor").removesuffix("_processor")
    title = title or _sentence(component)
    if column != feature:  # one element of an embedding says nothing alone
        return f"{title}: element {feature[len(column) + 1 : -1]} of its embedding"
    key, _, statistic = rest.rpartition("__")
    words = [word for part in (key or rest).split("_") if (word := _UNITS.get(part) or _WORDS.get(part, part))]
    if len(words) > 1 and words[0] == component:
        del words[0]
    suffix = _STATISTICS.get(statistic, statistic) if key else ""
    text = " ".join(words) + (f", {suffix}" if suffix else "")
    return f"{title}: {text}" if rest else title


def _sentence(name: str) -> str:
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
