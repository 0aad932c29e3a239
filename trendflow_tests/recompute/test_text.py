"""Features and vectors of the document, recomputed from docs/components.md, the catalogue and the document itself."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import onnxruntime
import pytest
from tokenizers import Tokenizer

from trendflow.contracts.video_document import VideoDocument
from trendflow.models.catalogue import Catalogue
from trendflow.models.pool import ModelPool
from trendflow_tests.components.text.documents import Bench, transcript
from trendflow_tests.recompute.compare import assert_scalars, duration_s, unit
from trendflow_tests.recompute.stored import XDIST_GROUP, StoredRun

pytestmark = pytest.mark.xdist_group(XDIST_GROUP)


def plain_words(text: str) -> list[str]:
    """Words of a text in which only spaces, full stops and the like separate words, but for apostrophes inside."""
    return [word for word in (piece.strip(".,;:!?") for piece in text.split()) if word]


def test_lexical_features(finished: StoredRun) -> None:
    title, description = finished.document.title or "", finished.document.description or ""
    assert not {"#", "&", "@", "www", "http"} & set(title + description), "what this reader does not handle"
    assert (title + description).isascii()
    words = plain_words(title)
    letters = [letter for letter in title if letter.isalpha()]
    hashtags = {tag.removeprefix("#").casefold() for tag in finished.document.tags if tag.startswith("#")}
    assert_scalars(
        finished,
        "text_processor",
        {
            "tp_tags_hashtag_unique_count": len(hashtags),
            "tp_tags_hashtag_avg_len": np.mean([len(tag) for tag in hashtags]),
            "tp_tags_hashtag_max_len": max(len(tag) for tag in hashtags),
            "tp_lex_title_len_words": len(words),
            "tp_lex_title_len_chars": len(title),
            "tp_lex_title_avg_word_len": np.mean([len(word) for word in words]),
            "tp_lex_title_type_token_ratio": len({word.casefold() for word in words}) / len(words),
            "tp_lex_title_upper_ratio": sum(letter.isupper() for letter in letters) / len(letters),
            "tp_lex_title_has_question": "?" in title,
            "tp_lex_title_has_exclamation": "!" in title,
            "tp_lex_description_len_words": len(plain_words(description)),
        },
    )


def test_speech_features(finished: StoredRun) -> None:
    transcript = finished.document.transcript
    assert transcript is not None
    segments = transcript.segments
    assert all(first.end <= second.start for first, second in pairwise(segments))
    text = " ".join(segment.text for segment in segments)
    spoken_s = sum(segment.end - segment.start for segment in segments)
    audio_s = finished.scalar("segmenter", "audio_coverage_ratio") * duration_s(finished)
    stated = [segment.confidence for segment in segments if segment.confidence is not None]
    assert_scalars(
        finished,
        "text_processor",
        {
            "tp_lex_transcript_len_words": len(plain_words(text)),
            "tp_asrproxy_confidence_present_rate": len(stated) / len(segments),
            "tp_asrproxy_confidence_mean": np.mean(stated),
            "tp_asrproxy_speech_rate_wpm": 60 * len(plain_words(text)) / spoken_s,
            "tp_asrproxy_speech_char_density": len(text) / audio_s,
            "tp_asrproxy_pause_ratio": 1 - spoken_s / audio_s,
        },
    )


@dataclass(frozen=True)
class Encoder:
    """The text encoder as the catalogue describes it, on onnxruntime and tokenizers."""

    facts: dict[str, Any]
    tokenizer: Tokenizer
    session: onnxruntime.InferenceSession

    @classmethod
    def of(cls, run: StoredRun) -> Encoder:
        entry, folder = run.model("text_encoder")
        assert (entry["preprocessing"]["prefix"], entry["postprocessing"]["pooling"]) == ("", "mean_over_mask")
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        return cls(entry["preprocessing"], tokenizer, session)

    def chunks(self, text: str) -> list[list[int]]:
        first, *tokens, last = self.tokenizer.encode(text).ids
        size, overlap = self.facts["chunk_tokens"], self.facts["chunk_overlap"]
        found = []
        for start in range(0, len(tokens), size - overlap):
            found.append([first, *tokens[start : start + size], last])
            if start + size >= len(tokens):
                break
        return found

    def embedding(self, text: str) -> np.ndarray:
        vectors = []
        for chunk in self.chunks(text):
            ids = np.array([chunk], np.int64)
            hidden = self.session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0]
            vectors.append(unit(hidden[0].mean(axis=0)))
        return unit(np.mean(vectors, axis=0))


def test_embeddings(finished: StoredRun) -> None:
    encoder, stored = Encoder.of(finished), finished.arrays("text_processor")
    title = encoder.embedding(finished.document.title or "")
    description = encoder.embedding(finished.document.description or "")
    np.testing.assert_allclose(stored["title_embedding"], title, atol=1e-6)
    np.testing.assert_allclose(stored["description_embedding"], description, atol=1e-6)
    np.testing.assert_array_equal(stored["primary_embedding"], stored["title_embedding"])
    assert_scalars(
        finished, "text_processor", {"tp_cos_title_desc": title @ description, "tp_descemb_n_chunks": 1}, rtol=1e-5
    )


def test_a_longer_document(finished: StoredRun, pool: ModelPool) -> None:
    """SYNTHETIC: a document with everything that the sample's lacks, counted by hand and by the written rules."""
    spoken = [f"word{k % 37 + k // 60}" for k in range(130)]
    talk = " ".join(f"Chapter {k} tells of rivers, towns and the road between them." for k in range(40))
    where = "See https://example.org/a#b and www.example.org or ask @the_host, mail me@example.org."
    signs = "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u26bd\u00a9"
    document = VideoDocument(
        title=f"Ünïque CAFÉ &amp; can’t  believe 3 Tricks tricks {signs}?! #Travel#Fun",
        description=f"{where} {talk} #travel",
        tags=("#FUN", "#2nite", "#7", "plain"),
        language="en",
        transcript=transcript(
            (1.0, 21.0, " ".join(spoken[:70]), 0.5), (11.0, 31.0, " ".join(spoken[70:])), (40.0, 50.0, "  ")
        ),
    )
    bench = Bench(pool.get(Catalogue.load()["minilm_l6"]))
    artifact = bench.run(document, duration_s=60.0, coverage=0.75)
    found = dict(zip(artifact.arrays["feature_names"].tolist(), artifact.arrays["feature_values"], strict=True))
    title = f"Ünïque CAFÉ & can’t believe 3 Tricks tricks {signs}?!"
    description = (document.description or "").removesuffix(" #travel")
    encoder = Encoder.of(finished)
    vectors = encoder.embedding(title), encoder.embedding(description)
    np.testing.assert_allclose(artifact.arrays["title_embedding"], vectors[0], atol=1e-6)
    np.testing.assert_allclose(artifact.arrays["description_embedding"], vectors[1], atol=1e-6)
    assert len(encoder.chunks(description)) > 1
    expected = {
        "tp_tags_hashtag_unique_count": 3,  # travel, fun, 2nite; #7 has no letter, #b belongs to an address
        "tp_tags_hashtag_avg_len": (6 + 3 + 5) / 3,
        "tp_tags_hashtag_max_len": 6,
        "tp_lex_title_len_words": 7,
        "tp_lex_title_len_chars": 6 + 4 + 1 + 5 + 7 + 1 + 6 + 6 + 1 + 4 + 9,  # and nine spaces
        "tp_lex_title_avg_word_len": (6 + 4 + 5 + 7 + 1 + 6 + 6) / 7,
        "tp_lex_title_type_token_ratio": 6 / 7,
        "tp_lex_title_upper_ratio": (1 + 4 + 1) / (6 + 4 + 4 + 7 + 6 + 6),
        "tp_lex_title_emoji_count": 2,  # a family and a ball; the sign of copyright is text
        "tp_lex_title_has_question": 1,
        "tp_lex_title_has_exclamation": 1,
        "tp_lex_title_has_number": 1,
        "tp_lex_title_clickbait_flag": 1,  # "can't believe"
        "tp_lex_description_url_count": 2,
        "tp_lex_description_mention_count": 1,
        "tp_lex_transcript_len_words": 130,
        "tp_lex_transcript_lexical_diversity": np.mean([len(set(spoken[k : k + 100])) / 100 for k in range(31)]),
        "tp_asrproxy_confidence_present_rate": 1 / 2,
        "tp_asrproxy_confidence_mean": 0.5,
        "tp_asrproxy_speech_rate_wpm": 60 * 130 / 30,
        "tp_asrproxy_speech_char_density": len(" ".join(spoken)) / 45,
        "tp_asrproxy_pause_ratio": 1 - 30 / 45,
        "tp_descemb_n_chunks": len(encoder.chunks(description)),
        "tp_cos_title_desc": vectors[0] @ vectors[1],
    }
    wrong = {name: (value, found[name]) for name, value in expected.items() if not np.isclose(value, found[name])}
    assert not wrong
