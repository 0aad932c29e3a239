"""Hashtags, and texts without them.

Everything that is measured or embedded afterwards sees the text without its hashtags, so adding some changes the tag
features alone. Addresses are left as they are: what follows a `#` in one is no tag.

Method: a hashtag is a number sign that continues no word, or follows a hashtag, and the letters, digits, marks and
underscores after it, at least one of them a letter (UAX #31). Outside addresses each is replaced by a space; they are
compared after case folding.
"""

from __future__ import annotations

from collections.abc import Iterable

import regex

from trendflow.components.text._text_form import character_count, folded, plain

URL = r"(?i:https?://|www\.)[^\s<>\"]+"
# UAX #31, hashtag identifiers: a number sign that does not continue a word, then letters, digits and marks. A tag holds
# a letter, so "#1" stays a number. Tags may follow each other without a space (\G).
_TAG = (
    r"(?:(?<![\p{XID_Continue}&#/])|\G)[#\uFE5F\uFF03]"
    r"(?=[\p{N}_]*\p{L})(?P<tag>[\p{L}\p{N}_][\p{XID_Continue}\u200c\u200d]*)"
)
_URL_OR_TAG = regex.compile(rf"(?P<url>{URL})|{_TAG}", regex.VERSION1)


def split_hashtags(text: str) -> tuple[str, list[str]]:
    """The plain text without its hashtags, and the hashtags, folded and without their number sign."""
    found: list[str] = []

    def take(match: regex.Match[str]) -> str:
        if match["url"] is not None:
            return str(match[0])
        found.append(folded(match["tag"]))
        return " "

    return plain(_URL_OR_TAG.sub(take, text)), found


def hashtag_features(hashtags: Iterable[str], searched: bool) -> dict[str, float]:
    """Number and length of distinct hashtags. Nothing was `searched` when the document has no text at all."""
    lengths = [character_count(tag) for tag in set(hashtags)]
    nan = float("nan")
    return {
        "tp_tags_hashtag_unique_count": float(len(lengths)) if searched else nan,
        "tp_tags_hashtag_avg_len": sum(lengths) / len(lengths) if lengths else nan,
        "tp_tags_hashtag_max_len": float(max(lengths)) if lengths else nan,
    }
