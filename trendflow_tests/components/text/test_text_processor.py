"""Documents counted by hand, what may not change anything, and what is missing."""

from __future__ import annotations

import html
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.components.text import text_processor
from trendflow.components.text.text_processor import FEATURES, TAG_FEATURES
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.video_document import VideoDocument
from trendflow_tests.components.text.documents import Bench, differing, features, transcript

TITLE = "5 Ways to SAVE Money 💰💰 — are YOU ready?! #money #Finance"
DESCRIPTION = "Read https://a.example/x and www.b.example, ask @the_bank. Save money, save time. #money"
DOCUMENT = VideoDocument(
    title=TITLE,
    description=DESCRIPTION,
    tags=("#Saving", "bank"),
    transcript=transcript((1.0, 4.0, "hello there world", 0.5), (6.0, 9.0, "hello again", 1.0)),
)


def test_a_document_counted_by_hand(bench: Bench) -> None:
    found = bench.features(DOCUMENT, duration_s=20.0)
    expected = {
        # money, finance, saving; `bank` is a keyword
        "tp_tags_hashtag_unique_count": 3,
        "tp_tags_hashtag_avg_len": (5 + 7 + 6) / 3,
        "tp_tags_hashtag_max_len": 7,
        "tp_lex_present_title": 1,
        "tp_lex_present_description": 1,
        "tp_lex_present_transcript": 1,
        # 5 Ways to SAVE Money are YOU ready
        "tp_lex_title_len_words": 8,
        # "5 Ways to SAVE Money 💰💰 — are YOU ready?!"
        "tp_lex_title_len_chars": 41,
        "tp_lex_title_avg_word_len": (1 + 4 + 2 + 4 + 5 + 3 + 3 + 5) / 8,
        "tp_lex_title_type_token_ratio": 1,
        # W SAVE M YOU of Ways to SAVE Money are YOU ready
        "tp_lex_title_upper_ratio": 9 / 26,
        "tp_lex_title_emoji_count": 2,
        "tp_lex_title_has_question": 1,
        "tp_lex_title_has_exclamation": 1,
        "tp_lex_title_has_number": 1,
        "tp_lex_title_clickbait_flag": 0,
        # Read https a.example x and www.b.example ask the_bank Save money save time
        "tp_lex_description_len_words": 12,
        "tp_lex_description_url_count": 2,
        "tp_lex_description_mention_count": 1,
        "tp_lex_transcript_len_words": 5,
        "tp_lex_transcript_lexical_diversity": math.nan,
        "tp_asrproxy_confidence_present_rate": 1,
        "tp_asrproxy_confidence_mean": 0.75,
        "tp_asrproxy_speech_rate_wpm": 60 * 5 / 6,
        # "hello there world hello again"
        "tp_asrproxy_speech_char_density": 29 / 20,
        "tp_asrproxy_pause_ratio": 1 - 6 / 20,
        "tp_descemb_n_chunks": 1,
    }
    cosine = found.pop("tp_cos_title_desc")
    assert 0.2 < cosine < 0.9  # both are about saving money
    assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_vectors_and_their_sources(bench: Bench) -> None:
    arrays = bench.run(DOCUMENT).arrays
    for name in ("title", "description", "primary"):
        assert np.linalg.norm(arrays[f"{name}_embedding"]) == pytest.approx(1.0, abs=1e-6)
        assert arrays[f"{name}_embedding_present"]
    np.testing.assert_array_equal(arrays["primary_embedding"], arrays["title_embedding"])
    assert arrays["primary_embedding_source"] == "title"
    cosine = features(bench.run(DOCUMENT))["tp_cos_title_desc"]
    assert cosine == pytest.approx(float(arrays["title_embedding"] @ arrays["description_embedding"]), abs=1e-6)

    untitled = bench.run(replace(DOCUMENT, title=None)).arrays
    assert "title_embedding" not in untitled
    assert not untitled["title_embedding_present"]
    assert untitled["primary_embedding_source"] == "description"
    np.testing.assert_array_equal(untitled["primary_embedding"], arrays["description_embedding"])


def test_meaning_decides_the_cosine(bench: Bench) -> None:
    def cosine(description: str) -> float:
        return bench.features(VideoDocument(title="How to bake bread", description=description))["tp_cos_title_desc"]

    assert cosine("A simple recipe for a fresh loaf") > cosine("Quarterly results of the steel industry") + 0.2
    assert cosine("How to bake bread") == pytest.approx(1.0, abs=1e-6)


def test_a_long_description_is_the_mean_of_its_chunks(bench: Bench) -> None:
    description = " ".join(f"Sentence {index} tells of the sea." for index in range(200))
    artifact = bench.run(VideoDocument(description=description))
    chunks = bench.encoder.split(description)
    assert features(artifact)["tp_descemb_n_chunks"] == len(chunks) > 1
    mean = np.concatenate([bench.encoder.embed([chunk]) for chunk in chunks]).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(artifact.arrays["description_embedding"], mean / np.linalg.norm(mean), atol=1e-6)


TAGS = st.lists(st.from_regex(r"[a-zé日][a-z0-9_é日]{0,8}", fullmatch=True), min_size=1, max_size=4)


@settings(max_examples=30)
@given(TAGS, TAGS)
def test_added_hashtags_change_only_tag_features(bench: Bench, first: list[str], second: list[str]) -> None:
    plain = VideoDocument(title="Fresh bread at home", description="We bake. Then we eat.", tags=("x",))
    words = plain.title.split()
    tagged = replace(
        plain,
        title=" ".join([words[0], *(f"#{tag}" for tag in first), *words[1:]]),
        description=plain.description + " " + "".join(f"#{tag}" for tag in second),
    )
    before, after = bench.run(plain), bench.run(tagged)
    assert differing(features(before), features(after)) == set(TAG_FEATURES)
    assert features(after)["tp_tags_hashtag_unique_count"] == len({*first, *second})
    for name in ("title_embedding", "description_embedding"):
        np.testing.assert_array_equal(before.arrays[name], after.arrays[name])


def test_hashtags_alone_are_no_text(bench: Bench) -> None:
    nothing, tagged = bench.run(VideoDocument()), bench.run(VideoDocument(title="#a #bcd", description=" #a"))
    assert (
        (tagged.status, tagged.empty_reason)
        == (nothing.status, nothing.empty_reason)
        == (
            "empty",
            "no_text_available",
        )
    )
    assert differing(features(nothing), features(tagged)) == set(TAG_FEATURES)
    found = features(tagged)
    assert [found[name] for name in TAG_FEATURES] == [2, 2, 3]


@settings(max_examples=30)
@given(
    st.text(max_size=40),
    st.text(max_size=40),
    st.sampled_from([" ", "\n", "\u00a0", "\t \u3000"]),
)
def test_white_space_and_entities_change_nothing(bench: Bench, title: str, description: str, space: str) -> None:
    def respelled(text: str) -> str:
        return space + html.escape(text).replace(" ", space) + space

    document = VideoDocument(title=title, description=description, transcript=transcript((0.0, 1.0, title)))
    other = VideoDocument(
        title=respelled(title),
        description=respelled(description),
        transcript=transcript((0.0, 1.0, respelled(title))),
    )
    first, second = bench.run(document), bench.run(other)
    assert (first.status, set(first.arrays)) == (second.status, set(second.arrays))
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(array, second.arrays[name])


@pytest.mark.parametrize(
    ("title", "name", "expected"),
    [
        ("Wait what؟", "has_question", 1),
        ("本当\uff1f", "has_question", 1),
        ("No question.", "has_question", 0),
        ("¡Vamos", "has_exclamation", 1),
        ("Half ½ done", "has_number", 1),
        ("Two thirds", "has_number", 0),
        ("日本語", "upper_ratio", math.nan),
        ("lower", "upper_ratio", 0),
        ("ABc DÉ", "upper_ratio", 4 / 5),
        ("The the THE cat", "type_token_ratio", 2 / 4),
        ("!!!", "len_words", 0),
        ("!!!", "avg_word_len", math.nan),
        ("!!!", "type_token_ratio", math.nan),
        ("!!!", "len_chars", 3),
        ("You won’t BELIEVE this", "clickbait_flag", 1),
        ("you won't believe this", "clickbait_flag", 1),
        ("Aftershocking news", "clickbait_flag", 0),
        ("Вы НЕ поверите", "clickbait_flag", 1),
        ("A quiet walk", "clickbait_flag", 0),
    ],
)
def test_single_title_features(bench: Bench, title: str, name: str, expected: float) -> None:
    assert bench.title(title)[name] == pytest.approx(expected, nan_ok=True)


def test_missing_parts_are_nan_with_a_reason_and_presence_zero(bench: Bench) -> None:
    for part in ("title", "description", "transcript"):
        artifact = bench.run(replace(DOCUMENT, **{part: None}))
        found = features(artifact)
        names = [name for name in FEATURES if name.startswith(f"tp_lex_{part}_")]
        names += [name for name in FEATURES if name.startswith("tp_asrproxy_")] if part == "transcript" else []
        names += ["tp_descemb_n_chunks"] if part == "description" else []
        assert np.isnan([found[name] for name in names]).all()
        assert found[f"tp_lex_present_{part}"] == 0
        assert artifact.status == "ok"
        absent = artifact.meta["absent_features"]
        assert {absent[name] for name in names} == {f"no {part} in the document"}
        assert set(absent) == {name for name, value in found.items() if math.isnan(value)}


@pytest.mark.parametrize("blank", [None, "", " \n\u200b", "&nbsp;"])
def test_no_text_is_empty(bench: Bench, blank: str | None) -> None:
    spoken = transcript() if blank is None else transcript((0.0, 1.0, blank))
    artifact = bench.run(VideoDocument(title=blank, description=blank, transcript=spoken))
    assert (artifact.status, artifact.empty_reason) == ("empty", "no_text_available")
    found = features(artifact)
    assert {name for name, value in found.items() if not math.isnan(value)} == {
        f"tp_lex_present_{part}" for part in ("title", "description", "transcript")
    }
    assert not any(artifact.arrays[f"{name}_embedding_present"] for name in ("title", "description", "primary"))
    assert artifact.models_used == (bench.encoder.used,)


def test_a_transcript_alone_is_text(bench: Bench) -> None:
    artifact = bench.run(VideoDocument(transcript=transcript((0.0, 1.0, "hello"))))
    assert artifact.status == "ok"
    assert not artifact.arrays["primary_embedding_present"]


def test_a_title_that_the_model_cannot_see_has_no_vector(bench: Bench) -> None:
    # A lone combining mark is dropped by the tokenizer: there is a text, but nothing to embed.
    artifact = bench.run(VideoDocument(title="\u0301"))
    assert features(artifact)["tp_lex_present_title"] == 1
    assert not artifact.arrays["title_embedding_present"]


def test_overlapping_captions_count_their_time_once(bench: Bench) -> None:
    rolling = transcript((0.0, 6.0, "one two"), (2.0, 4.0, "three"), (5.0, 10.0, "four five six"))
    found = bench.features(VideoDocument(transcript=rolling), duration_s=20.0)
    assert found["tp_asrproxy_speech_rate_wpm"] == pytest.approx(60 * 6 / 10)
    assert found["tp_asrproxy_pause_ratio"] == pytest.approx(0.5)
    assert found["tp_asrproxy_confidence_present_rate"] == 0
    assert math.isnan(found["tp_asrproxy_confidence_mean"])


def test_captions_past_the_end_or_without_audio(bench: Bench) -> None:
    document = VideoDocument(transcript=transcript((0.0, 30.0, "one two three")))
    assert bench.features(document, duration_s=20.0)["tp_asrproxy_speech_rate_wpm"] == pytest.approx(9.0)
    assert bench.features(document, duration_s=20.0, coverage=0.5)["tp_asrproxy_pause_ratio"] == 0
    artifact = bench.run(document, coverage=0.0)
    found, absent = features(artifact), artifact.meta["absent_features"]
    for name in ("tp_asrproxy_speech_char_density", "tp_asrproxy_pause_ratio"):
        assert math.isnan(found[name])
        assert absent[name] == "less than a second of audio"
    instant = bench.features(VideoDocument(transcript=transcript((3.0, 3.0, "one"))))
    assert math.isnan(instant["tp_asrproxy_speech_rate_wpm"])


def test_diversity_needs_a_full_window(bench: Bench) -> None:
    def diversity(count: int) -> float:
        said = " ".join(["same", "words"] * (count // 2))
        document = VideoDocument(transcript=transcript((0.0, 50.0, said)))
        return bench.features(document)["tp_lex_transcript_lexical_diversity"]

    assert math.isnan(diversity(98))
    assert diversity(100) == pytest.approx(0.02)
    assert diversity(400) == pytest.approx(0.02)


def test_segments_split_elsewhere_change_nothing(bench: Bench) -> None:
    whole = transcript((0.0, 4.0, "one two three four", 0.5))
    parts = transcript((0.0, 1.0, "one", 0.5), (1.0, 4.0, "two  three four", 0.5))
    first, second = (bench.features(VideoDocument(transcript=spoken)) for spoken in (whole, parts))
    assert differing(first, second) == set()


@settings(max_examples=60)
@given(
    title=st.none() | st.text(max_size=60),
    description=st.none() | st.text(max_size=200),
    tags=st.lists(st.text(max_size=10), max_size=3),
    segments=st.lists(
        st.tuples(st.floats(0, 100), st.floats(0, 100), st.text(max_size=30), st.none() | st.floats(0, 1)), max_size=3
    ),
)
def test_any_text_gives_a_valid_artifact(
    bench: Bench, title: Any, description: Any, tags: list[str], segments: list[Any]
) -> None:
    spoken = transcript(*((min(a, b), max(a, b), text, confidence) for a, b, text, confidence in segments))
    artifact = bench.run(VideoDocument(title, description, tuple(tags), None, spoken))
    found = features(artifact)
    assert tuple(found) == FEATURES
    assert not np.isinf(list(found.values())).any()


def test_what_is_missing_has_its_code(bench: Bench) -> None:
    for broken in (bench.inputs(None), replace(bench.inputs(DOCUMENT), models={})):
        with pytest.raises(TrendFlowError) as caught:
            text_processor.run(broken)
        assert caught.value.error_code == "dependency_missing"


def test_a_model_that_takes_no_text_is_refused(bench: Bench) -> None:
    class NoTextEncoder:
        """Any other model: it has no `split` and no `embed`."""

        entry, used, device_used = bench.encoder.entry, bench.encoder.used, "cpu"

        def infer(self, inputs: Any) -> dict[str, np.ndarray]:
            return {}

    with pytest.raises(TrendFlowError, match="no text encoder") as caught:
        text_processor.run(replace(bench.inputs(DOCUMENT), models={"text_encoder": NoTextEncoder()}))
    assert caught.value.error_code == "model_spec_invalid"


def test_an_embedding_of_another_width_is_refused(bench: Bench) -> None:
    class Narrow:
        """The shipped encoder without the last ten values of its vectors."""

        entry, used, device_used = bench.encoder.entry, bench.encoder.used, "cpu"
        infer, split = bench.encoder.infer, bench.encoder.split

        def embed(self, chunks: Any) -> np.ndarray:
            return bench.encoder.embed(chunks)[:, :-10]

    with pytest.raises(TrendFlowError, match="not 384 wide") as caught:
        text_processor.run(replace(bench.inputs(DOCUMENT), models={"text_encoder": Narrow()}))
    assert caught.value.error_code == "model_spec_invalid"
