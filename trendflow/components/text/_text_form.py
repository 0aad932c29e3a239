"""The one form in which text is measured, and its words and characters.

Two spellings of one text (entities or signs, composed or decomposed, one space or many) have the same form, so no
feature can tell them apart.

Method: a text is measured in NFC with HTML character references decoded, invisible signs (soft hyphens, direction
marks) taken out and runs of white space made one space, without any at the ends. Characters are the extended grapheme
clusters of UAX #29. Words are what lies between its word boundaries and holds a letter or a digit; they are compared
after case folding and with one kind of apostrophe.
"""

from __future__ import annotations

import unicodedata
from html import unescape
from html.entities import html5

import regex

# A text encoded more often than this is not found in the wild; a bound keeps hostile chains from costing a pass each.
_DECODING_PASSES = 4
# Only complete references: `&copy=1` in the query of a URL is no copyright sign.
_REFERENCE = regex.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|([A-Za-z][A-Za-z0-9]{1,31}));")
# Soft hyphen, byte order mark, word joiner and the marks of writing direction: invisible and no part of a word.
_INVISIBLE = regex.compile(r"[\u00ad\u061c\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_SPACE = regex.compile(r"[\p{White_Space}\p{Cc}\u200b]+")
_WORD_BOUNDARY = regex.compile(r"\b", regex.VERSION1 | regex.WORD)
_WORD = regex.compile(r"[\p{Alphabetic}\p{N}]")
_CHARACTER = regex.compile(r"\X")
_APOSTROPHE = regex.compile("[\u2018\u2019\u02bc\uff07`\u00b4]")


def plain(text: str) -> str:
    """`text` in NFC, HTML character references decoded, runs of white space one space, without invisible signs."""
    for _ in range(_DECODING_PASSES):
        decoded = unicodedata.normalize("NFC", _INVISIBLE.sub("", _REFERENCE.sub(_decoded, text)))
        if decoded == text:
            break
        text = decoded
    return _SPACE.sub(" ", text).strip(" ")


def words(text: str) -> list[str]:
    """Words of a plain text: segments between the word boundaries of UAX #29 that hold a letter or a digit.

    Scripts without spaces follow the same default rules: every Han sign is a word, a run of Katakana is one.
    """
    return [piece for piece in _WORD_BOUNDARY.split(text) if _WORD.search(piece)]


def folded(word: str) -> str:
    """The form in which words are compared: case folded, one kind of apostrophe."""
    return _APOSTROPHE.sub("'", word).casefold()


def character_count(text: str) -> int:
    """Characters as a reader counts them: extended grapheme clusters of UAX #29."""
    return sum(1 for _ in _CHARACTER.finditer(text))


def _decoded(match: regex.Match[str]) -> str:
    name = match[1]
    return unescape(match[0]) if name is None or f"{name};" in html5 else match[0]
