"""text_processor: numbers and vectors from title, description and transcript. The texts themselves stay in memory.

Hashtags are taken out of title and description first; lexical features and embeddings see what is left. A text that
holds nothing but hashtags and white space counts as missing.

Method: the transcript is its segments that hold text, joined by a space. Seconds of audio are audio_coverage_ratio ·
duration of the Segmenter.

Method: a text is embedded in chunks of `chunk_tokens` of the entry's tokens, each sharing `chunk_overlap` with the
one before, the last one ending with the text; special tokens and `prefix` frame every chunk. The vector of a chunk is
the mean of its tokens' vectors where the entry's `pooling` is `mean_over_mask`, scaled to unit length; several chunks
are averaged and scaled again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from trendflow.components._entry import need_model
from trendflow.components.base import ComponentInputs, ComponentSpec
from trendflow.components.text._hashtags import hashtag_features, split_hashtags
from trendflow.components.text._lexical import (
    DESCRIPTION_FEATURES,
    TITLE_FEATURES,
    TRANSCRIPT_FEATURES,
    description_features,
    title_features,
    transcript_features,
)
from trendflow.components.text._privacy import require_closed_vocabulary
from trendflow.components.text._speech import SPEECH_FEATURES, speech_features
from trendflow.components.text._text_form import plain, words
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.thresholds import THRESHOLDS
from trendflow.contracts.video_document import TranscriptSegment, VideoDocument
from trendflow.contracts.word_lists import CLICKBAIT
from trendflow.models.interface import TextEncoder

SPEC = ComponentSpec(
    name="text_processor",
    producer_version="1.0.0",
    schema_version="text_npz_v2",
    hard=("segmenter",),
    soft=("asr_extractor",),
    reads=("document",),
    roles=("text_encoder",),
    reference={**THRESHOLDS.reference, **CLICKBAIT.reference},
)

TAG_FEATURES = ("tp_tags_hashtag_unique_count", "tp_tags_hashtag_avg_len", "tp_tags_hashtag_max_len")
EMBEDDING_FEATURES = ("tp_descemb_n_chunks", "tp_cos_title_desc")
PARTS = ("title", "description", "transcript")
FEATURES = (
    *TAG_FEATURES,
    *(f"tp_lex_present_{part}" for part in PARTS),
    *TITLE_FEATURES,
    *DESCRIPTION_FEATURES,
    *TRANSCRIPT_FEATURES,
    *SPEECH_FEATURES,
    *EMBEDDING_FEATURES,
)
SOURCES = ("title", "description")  # of the primary embedding, best first

_BY_PART = {
    "title": TITLE_FEATURES,
    "description": (*DESCRIPTION_FEATURES, "tp_descemb_n_chunks"),
    "transcript": (*TRANSCRIPT_FEATURES, *SPEECH_FEATURES),
}
# Reasons of single features, once the text they measure is there.
_REASONS = {
    **dict.fromkeys(TAG_FEATURES, "no hashtag in the document"),
    "tp_lex_title_avg_word_len": "no word in the title",
    "tp_lex_title_type_token_ratio": "no word in the title",
    "tp_lex_title_upper_ratio": "no letter with upper and lower case in the title",
    "tp_lex_transcript_lexical_diversity": "transcript shorter than the moving window",
    "tp_asrproxy_confidence_mean": "the transcript states no confidence",
    "tp_asrproxy_speech_rate_wpm": "the transcript covers less than a second of the video",
    "tp_asrproxy_speech_char_density": "less than a second of audio",
    "tp_asrproxy_pause_ratio": "less than a second of audio",
    "tp_cos_title_desc": "title and description have not both a vector",
}
_MISSING = {part: f"no {part} in the document" for part in PARTS}
_VOCABULARY = frozenset(
    {*FEATURES, *SOURCES, *_REASONS.values(), *_MISSING.values(), "absent_features", THRESHOLDS.version}
)


@dataclass(frozen=True)
class _Texts:
    """The plain texts of a document, without hashtags; empty where missing. They stay out of `repr`."""

    title: str = field(repr=False)
    description: str = field(repr=False)
    transcript: str = field(repr=False)
    segments: tuple[TranscriptSegment, ...] = field(repr=False)
    hashtags: tuple[str, ...] = field(repr=False)
    searched: bool
    """Whether there was any text that could have held a hashtag."""

    def present(self, part: str) -> bool:
        return bool(getattr(self, part))


def run(inputs: ComponentInputs) -> Artifact:
    """Measure and embed the document.

    Raises `dependency_missing` (no document, no model), `model_spec_invalid` (the model is no text encoder or gives
    another width) or `artifact_validation_failed` (text in the result).
    """
    document = inputs.need_document()
    encoder = need_model(inputs, "text_encoder")
    if not isinstance(encoder, TextEncoder) or encoder.entry.embedding_dim is None:
        raise TrendFlowError("model_spec_invalid", f"The entry {encoder.entry.name} describes no text encoder.")
    started = time.perf_counter()
    texts = _texts(document)
    features = dict.fromkeys(FEATURES, float("nan")) | _measure(inputs, texts)
    measured = time.perf_counter()
    vectors, chunks = _embed(inputs, encoder, {name: getattr(texts, name) for name in SOURCES if texts.present(name)})
    if texts.description:
        features["tp_descemb_n_chunks"] = float(chunks["description"])
    if len(vectors) == len(SOURCES):
        cosine = float(vectors["title"].astype(np.float64) @ vectors["description"].astype(np.float64))
        features["tp_cos_title_desc"] = min(1.0, max(-1.0, cosine))
    available = any(texts.present(part) for part in PARTS)
    artifact = Artifact(
        arrays={**_vector_arrays(vectors), **feature_arrays({name: features[name] for name in FEATURES})},
        status="ok" if available else "empty",
        empty_reason=None if available else "no_text_available",
        # Also of a document without text: the plan names the model, and it was there.
        models_used=(encoder.used,),
        device_used=encoder.device_used,
        meta={
            "thresholds_version": THRESHOLDS.version,
            "absent_features": _absent(texts, features) if available else {},
        },
        stage_timings_ms={
            "lexical": (measured - started) * 1e3,
            "embed": (time.perf_counter() - measured) * 1e3,
        },
    )
    require_closed_vocabulary(artifact, _VOCABULARY)
    return artifact


def _texts(document: VideoDocument) -> _Texts:
    title, title_tags = split_hashtags(plain(document.title or ""))
    description, description_tags = split_hashtags(plain(document.description or ""))
    # Keywords are no hashtags unless they are written like one; their number is a feature of the metadata.
    listed = [tag for item in document.tags for tag in split_hashtags(plain(item))[1]]
    segments = document.transcript.segments if document.transcript is not None else ()
    spoken = tuple(segment for segment in segments if plain(segment.text))
    return _Texts(
        title=title,
        description=description,
        transcript=plain(" ".join(segment.text for segment in spoken)),
        segments=spoken,
        hashtags=(*title_tags, *description_tags, *listed),
        searched=bool(title or description or title_tags or description_tags or document.tags),
    )


def _measure(inputs: ComponentInputs, texts: _Texts) -> dict[str, float]:
    """All features but those of the embeddings."""
    features = hashtag_features(texts.hashtags, texts.searched)
    features |= {f"tp_lex_present_{part}": float(texts.present(part)) for part in PARTS}
    if texts.title:
        features |= title_features(texts.title)
    if texts.description:
        features |= description_features(texts.description)
    if texts.transcript:
        found = words(texts.transcript)
        video_s = inputs.video.duration_sec
        audio_s = inputs.upstream["segmenter"].feature("audio_coverage_ratio") * video_s
        features |= transcript_features(found)
        features |= speech_features(texts.segments, texts.transcript, len(found), video_s, audio_s)
    return features


def _embed(
    inputs: ComponentInputs, encoder: TextEncoder, texts: Mapping[str, str]
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Unit vector of each text, the normalised mean of its chunks, and its number of chunks.

    A text without any token of the model, or whose chunks cancel out, has no vector.
    """
    chunks = {name: encoder.split(text) for name, text in texts.items()}
    flat = [chunk for found in chunks.values() for chunk in found]

    def step(start: int, stop: int) -> np.ndarray:
        vectors = encoder.embed(flat[start:stop])
        if vectors.shape != (stop - start, encoder.entry.embedding_dim):
            raise TrendFlowError(
                "model_spec_invalid",
                f"The embedding of {encoder.entry.name} is not {encoder.entry.embedding_dim} wide.",
                shape=list(vectors.shape),
            )
        inputs.progress(stop, len(flat))
        return vectors

    parts = inputs.runner.run(len(flat), step, encoder.entry.max_batch_size)
    rows = iter(np.concatenate(parts) if parts else ())
    vectors = {}
    for name, found in chunks.items():
        if not found:
            continue
        mean = np.stack([next(rows) for _ in found]).astype(np.float64).mean(axis=0)
        length = float(np.linalg.norm(mean))
        if length > 1e-6:
            vectors[name] = (mean / length).astype(np.float32)
    return vectors, {name: len(found) for name, found in chunks.items()}


def _vector_arrays(vectors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    primary = next((name for name in SOURCES if name in vectors), None)
    arrays = {f"{name}_embedding": vector for name, vector in vectors.items()}
    arrays |= {f"{name}_embedding_present": np.array(name in vectors) for name in SOURCES}
    arrays["primary_embedding_present"] = np.array(primary is not None)
    if primary is not None:
        arrays |= {"primary_embedding": vectors[primary], "primary_embedding_source": np.array(primary)}
    return arrays


def _absent(texts: _Texts, features: Mapping[str, float]) -> dict[str, str]:
    """Why each NaN is one."""
    missing = {name: _MISSING[part] for part, names in _BY_PART.items() if not texts.present(part) for name in names}
    return {name: missing.get(name) or _REASONS[name] for name, value in features.items() if math.isnan(value)}
