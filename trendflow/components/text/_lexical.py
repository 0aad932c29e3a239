"""Lexical features of title, description and transcript. All texts are plain and without hashtags."""

from __future__ import annotations

from collections import Counter
from functools import cache

import emoji
import regex

from trendflow.components.text._constants import TEXT
from trendflow.components.text._hashtags import URL
from trendflow.components.text._text_form import character_count, folded, plain, words
from trendflow.contracts.word_lists import CLICKBAIT

TITLE_FEATURES = (
    "tp_lex_title_len_words",
    "tp_lex_title_len_chars",
    "tp_lex_title_avg_word_len",
    "tp_lex_title_type_token_ratio",
    "tp_lex_title_upper_ratio",
    "tp_lex_title_emoji_count",
    "tp_lex_title_has_question",
    "tp_lex_title_has_exclamation",
    "tp_lex_title_has_number",
    "tp_lex_title_clickbait_flag",
)
DESCRIPTION_FEATURES = (
    "tp_lex_description_len_words",
    "tp_lex_description_url_count",
    "tp_lex_description_mention_count",
)
TRANSCRIPT_FEATURES = ("tp_lex_transcript_len_words", "tp_lex_transcript_lexical_diversity")


# Question and exclamation marks of the scripts that have their own; NFC has already merged the Greek one with `;`.
_QUESTION = regex.compile("[?¿\u037e\u055e\u061f\u1367\u203d\u2047-\u2049\u2753\u2754\u2cfa\u2e2e\ua60f\ufe56\uff1f]")
_EXCLAMATION = regex.compile("[!¡\u055c\u07f9\u1944\u203c\u203d\u2048\u2049\u2755\u2757\ufe57\uff01]")
_NUMBER = regex.compile(r"\p{N}")
_UPPER, _CASED = regex.compile(r"[\p{Lu}\p{Lt}]"), regex.compile(r"[\p{Lu}\p{Lt}\p{Ll}]")
# Signs such as © are text unless a variation selector says otherwise.
_SHOWN_AS_EMOJI = regex.compile(r"[\p{Emoji_Presentation}\ufe0f]")
_URL = regex.compile(URL, regex.VERSION1)
# Handles as the large platforms define them: 3 to 30 letters, digits and `_ - . ·`. An address of a mailbox has a name
# before its sign, and a channel's address is counted as a URL.
_URL_OR_MENTION = regex.compile(
    rf"{URL}|(?<![\p{{XID_Continue}}.@/+-])@(?P<handle>[\p{{L}}\p{{N}}_][\p{{L}}\p{{N}}\p{{M}}_.·-]{{2,29}})",
    regex.VERSION1,
)


def title_features(title: str) -> dict[str, float]:
    """`TITLE_FEATURES` of a title; ratios without a denominator are NaN."""
    found = words(title)
    cased = len(_CASED.findall(title))
    values = (
        len(found),
        character_count(title),
        _ratio(sum(map(character_count, found)), len(found)),
        _ratio(len({folded(word) for word in found}), len(found)),
        _ratio(len(_UPPER.findall(title)), cased),
        emoji_count(title),
        bool(_QUESTION.search(title)),
        bool(_EXCLAMATION.search(title)),
        bool(_NUMBER.search(title)),
        is_clickbait(found),
    )
    return dict(zip(TITLE_FEATURES, map(float, values), strict=True))


def description_features(description: str) -> dict[str, float]:
    """`DESCRIPTION_FEATURES` of a description."""
    mentions = sum(match["handle"] is not None for match in _URL_OR_MENTION.finditer(description))
    values = (len(words(description)), len(_URL.findall(description)), mentions)
    return dict(zip(DESCRIPTION_FEATURES, map(float, values), strict=True))


def transcript_features(found: list[str]) -> dict[str, float]:
    """`TRANSCRIPT_FEATURES` of a transcript's words."""
    values = (len(found), lexical_diversity([folded(word) for word in found], TEXT.diversity_window))
    return dict(zip(TRANSCRIPT_FEATURES, map(float, values), strict=True))


def lexical_diversity(found: list[str], window: int) -> float:
    """Moving-average type-token ratio (Covington & McFall 2010): mean share of distinct words in every `window` words.

    NaN for a shorter text: its own ratio rises as it gets shorter and cannot be compared.
    """
    if len(found) < window:
        return float("nan")
    counts = Counter(found[:window])
    total = len(counts)
    for gone, come in zip(found, found[window:], strict=False):
        counts[come] += 1
        counts[gone] -= 1
        if not counts[gone]:
            del counts[gone]
        total += len(counts)
    return total / (window * (len(found) - window + 1))


def emoji_count(text: str) -> int:
    """Emoji as they are seen: a sequence (family, flag, keycap, skin tone) counts once."""
    return sum(bool(_SHOWN_AS_EMOJI.search(found["emoji"])) for found in emoji.emoji_list(text))


def is_clickbait(found: list[str]) -> bool:
    """Whether the words contain a phrase of the clickbait list."""
    compared = tuple(folded(word) for word in found)
    return any(
        compared[at : at + length] in phrases
        for length, phrases in _clickbait_phrases().items()
        for at in range(len(compared) - length + 1)
    )


@cache
def _clickbait_phrases() -> dict[int, frozenset[tuple[str, ...]]]:
    """The phrases of all languages as folded words, by their number of words."""
    split = {
        tuple(folded(word) for word in words(plain(phrase)))
        for language in CLICKBAIT.phrases.values()
        for phrase in language
    }
    return {length: frozenset(p for p in split if len(p) == length) for length in {len(p) for p in split}}


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
