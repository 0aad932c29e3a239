"""The common form of texts, words after Unicode, hashtags, and what is counted."""

from __future__ import annotations

import html
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trendflow.components.text._hashtags import split_hashtags
from trendflow.components.text._lexical import description_features, emoji_count, lexical_diversity
from trendflow.components.text._text_form import character_count, folded, plain, words

SPACES = st.text(st.sampled_from(" \t\n\r\u00a0\u2003\u3000\u200b"), min_size=1, max_size=3)
TEXTS = st.text(max_size=60)


@given(TEXTS)
@example("&lt;b&gt;")
@example("&amp;amp;")
@example("AT&T; &copy=1 &notit; &#0; &#xD800;")
@example("&lt\u037e")  # composed to a semicolon, which completes a reference
def test_the_form_is_reached_at_once_and_encoding_changes_nothing(text: str) -> None:
    assert plain(plain(text)) == plain(text)
    assert plain(html.escape(text)) == plain(text)
    assert plain("".join(f"&#{ord(sign)};" if sign.isalnum() else sign for sign in text)) == plain(text)


@given(TEXTS)
@example("e\u0301\u0327")
def test_canonically_equal_texts_have_one_form(text: str) -> None:
    assert plain(unicodedata.normalize("NFD", text)) == plain(text) == unicodedata.normalize("NFC", plain(text))


@given(st.lists(st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1), max_size=6), st.data())
def test_white_space_changes_nothing(pieces: list[str], data: st.DataObject) -> None:
    spaced = "".join(data.draw(SPACES) + piece for piece in pieces) + data.draw(SPACES)
    assert plain(spaced) == plain(" ".join(pieces))


def test_invisible_signs_vanish() -> None:
    assert plain("\ufeffa\u00adb \u202bc\u202c\u200e") == "ab c"
    assert plain("👩\u200d🚀") == "👩\u200d🚀"  # the joiner makes the picture


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The example of UAX #29 itself.
        (
            "The quick (“brown”) fox can’t jump 32.3 feet, right?",
            ["The", "quick", "brown", "fox", "can’t", "jump", "32.3", "feet", "right"],
        ),
        ("3,456.789 don't U.S.A. snake_case", ["3,456.789", "don't", "U.S.A", "snake_case"]),
        ("state-of-the-art", ["state", "of", "the", "art"]),
        ("Привет, мир!", ["Привет", "мир"]),
        ("日本語カタカナ한국어", ["日", "本", "語", "カタカナ", "한국어"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("!!! 🔥 …", []),
        ("", []),
    ],
)
def test_words_follow_unicode(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("abc", 3), ("é", 1), ("e\u0301", 1), ("👨‍👩‍👧‍👦", 1), ("🇩🇪🇫🇷", 2), ("1️⃣", 1), ("नि", 1), ("", 0)],
)
def test_characters_are_what_a_reader_counts(text: str, expected: int) -> None:
    assert character_count(text) == expected


@given(TEXTS)
def test_words_are_parts_of_the_text_in_order(text: str) -> None:
    rest = plain(text)
    for word in words(rest):
        before, found, rest = rest.partition(word)
        assert found
        assert words(before) == []


def test_folding_joins_case_and_apostrophes() -> None:
    assert folded("WON’T") == folded("won't") == "won't"
    assert folded("STRASSE") == folded("Straße")


@pytest.mark.parametrize(
    ("text", "rest", "tags"),
    [
        ("#Go now", "now", ["go"]),
        ("a #b c", "a c", ["b"]),
        ("a#b C# F#m", "a#b C# F#m", []),
        ("#java#docker end", "end", ["java", "docker"]),
        ("my #1 and #2nd", "my #1 and", ["2nd"]),
        ("“#quoted”, (#round)", "“ ”, ( )", ["quoted", "round"]),
        ("#日本 #été_2024 #हिन्दी", "", ["日本", "été_2024", "हिन्दी"]),
        ("see https://a.b/#top?x=#y ok", "see https://a.b/#top?x=#y ok", []),
        ("#️⃣ keycap", "#️⃣ keycap", []),
        ("wide \uff03tag", "wide", ["tag"]),
        ("# alone", "# alone", []),
        ("mother&#39;s &#35;day", "mother's", ["day"]),
    ],
)
def test_hashtags_are_taken_out(text: str, rest: str, tags: list[str]) -> None:
    assert split_hashtags(plain(text)) == (rest, tags)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ©™ 1 #", 0),
        ("🔥🔥", 2),
        ("👨‍👩‍👧‍👦 👍🏽 🇩🇪", 3),
        ("1️⃣ ✂️", 2),
        ("✂", 0),  # without its selector it is a text sign
    ],
)
def test_emoji_count_as_seen(text: str, expected: int) -> None:
    assert emoji_count(text) == expected


@pytest.mark.parametrize(
    ("text", "urls", "mentions"),
    [
        ("https://a.b/c?d=@e http://x.y WWW.z.w ftp://no", 3, 0),
        ("@one_two (@three.four) @ab mail me@x.org a@bcd", 0, 2),
        ("https://youtube.com/@channel @channel", 1, 1),
        ("nothing here", 0, 0),
    ],
)
def test_addresses_and_mentions(text: str, urls: int, mentions: int) -> None:
    found = description_features(text)
    assert found["tp_lex_description_url_count"] == urls
    assert found["tp_lex_description_mention_count"] == mentions


@given(st.lists(st.sampled_from("abcdef"), max_size=40), st.integers(1, 12))
def test_diversity_equals_its_definition(found: list[str], window: int) -> None:
    runs = [found[at : at + window] for at in range(len(found) - window + 1)]
    if not runs:
        assert lexical_diversity(found, window) != lexical_diversity(found, window)  # NaN
    else:
        expected = sum(len(set(run)) / window for run in runs) / len(runs)
        assert lexical_diversity(found, window) == pytest.approx(expected)


def test_a_hostile_chain_of_references_costs_no_more_than_its_length() -> None:
    chain = "&" + "amp;" * 200_000 + "lt;"
    assert len(plain(chain)) > len(chain) - 50  # a few levels are decoded, not one pass for each
