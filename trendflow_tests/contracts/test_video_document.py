"""The document of a video: what is accepted, what is refused without being quoted, and what its digest covers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.video_document import MAX_DOCUMENT_BYTES, VideoDocument, parse_document

CANARY = "canary4711"
SEGMENT = {"start": 0, "end": 1.5, "text": "hello", "confidence": 0.9}
TRANSCRIPT = {"source": "platform_captions", "observed_at": "2026-01-02T03:04:05Z", "segments": [SEGMENT]}
FULL = {"title": "A title", "description": "Ünïcödé 🎬", "tags": ["a", "b"], "language": "en", "transcript": TRANSCRIPT}


def parsed(value: Any) -> VideoDocument:
    return parse_document(json.dumps(value).encode())


def test_every_field_arrives() -> None:
    found = parsed(FULL)
    assert (found.title, found.description, found.tags, found.language) == ("A title", "Ünïcödé 🎬", ("a", "b"), "en")
    assert found.transcript is not None
    assert (found.transcript.source, found.transcript.observed_at) == ("platform_captions", "2026-01-02T03:04:05Z")
    segment = found.transcript.segments[0]
    assert (segment.start, segment.end, segment.text, segment.confidence) == (0.0, 1.5, "hello", 0.9)


def test_the_digest_is_the_canonical_one() -> None:
    # The numbers as floats: 0 and 0.0 are one time.
    written = {**FULL, "transcript": {**TRANSCRIPT, "segments": [{**SEGMENT, "start": 0.0}]}}
    assert parsed(FULL).digest == parsed(written).digest == digest_of(written)
    shuffled = dict(reversed(list(FULL.items())))
    assert parsed(shuffled).digest == parsed(FULL).digest


def test_left_out_and_null_are_the_same() -> None:
    empty = dict.fromkeys(FULL)
    assert parsed({}) == parsed(empty)
    assert parsed({}).digest == parsed(empty).digest


@pytest.mark.parametrize(
    "change",
    [
        {"title": "A title "},
        {"description": None},
        {"tags": ["b", "a"]},
        {"language": "de"},
        {"transcript": None},
        {"transcript": {**TRANSCRIPT, "source": "asr"}},
        {"transcript": {**TRANSCRIPT, "segments": [{**SEGMENT, "confidence": None}]}},
    ],
)
def test_every_change_changes_the_digest(change: dict[str, Any]) -> None:
    assert parsed({**FULL, **change}).digest != parsed(FULL).digest


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ([CANARY], ""),
        ({CANARY: 1}, ""),
        ({"title": [CANARY]}, "title"),
        ({"title": CANARY + "\ud800"}, "title"),
        ({"tags": CANARY}, "tags"),
        ({"tags": [CANARY, 1]}, "tags"),
        ({"transcript": CANARY}, "transcript"),
        ({"transcript": {**TRANSCRIPT, "observed_at": CANARY}}, "transcript.observed_at"),
        ({"transcript": {**TRANSCRIPT, "observed_at": "2026-01-02T03:04:05"}}, "transcript.observed_at"),
        ({"transcript": {**TRANSCRIPT, "source": None}}, "transcript.source"),
        ({"transcript": {**TRANSCRIPT, "segments": CANARY}}, "transcript.segments"),
        ({"transcript": {**TRANSCRIPT, "segments": [{**SEGMENT, "end": -1}]}}, "transcript.segments"),
        ({"transcript": {**TRANSCRIPT, "segments": [{**SEGMENT, "start": 1}, SEGMENT]}}, "transcript.segments"),
        ({"transcript": {**TRANSCRIPT, "segments": [{**SEGMENT, "end": 10**400}]}}, "transcript.segments.end"),
        ({"transcript": {**TRANSCRIPT, "segments": [{**SEGMENT, "end": float("nan")}]}}, "transcript.segments.end"),
        ({"transcript": {**TRANSCRIPT, "segments": [{**SEGMENT, "text": 1}]}}, "transcript.segments.text"),
        (
            {"transcript": {**TRANSCRIPT, "segments": [{**SEGMENT, "confidence": 1.1}]}},
            "transcript.segments.confidence",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_field(value: Any, field: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        parsed(value)
    assert (caught.value.error_code, caught.value.detail["field"]) == ("input_constraint_violated", field)
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("data", [f"{{{CANARY}".encode(), CANARY.encode() + b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_not_quoted(data: bytes) -> None:
    with pytest.raises(TrendFlowError, match="input_constraint_violated") as caught:
        parse_document(data)
    assert CANARY not in f"{caught.value}{caught.value.detail}{caught.value.__cause__}"


def test_a_document_has_a_largest_size() -> None:
    body = json.dumps({"title": ""}).encode()
    fits = body.replace(b'""', b'"' + b"x" * (MAX_DOCUMENT_BYTES - len(body)) + b'"')
    assert len(parse_document(fits).title or "") == MAX_DOCUMENT_BYTES - len(body)
    with pytest.raises(TrendFlowError, match="input_constraint_violated"):
        parse_document(fits.replace(b"xx", b"xxx", 1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(CANARY),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*FULL, *TRANSCRIPT, *SEGMENT, CANARY]), inner, max_size=4)
    ),
    max_leaves=8,
)


def refusal(value: Any) -> TrendFlowError | None:
    try:
        parsed(value)
    except TrendFlowError as error:
        return error
    return None


@given(JSON)
def test_any_json_is_a_document_or_a_typed_refusal_that_quotes_nothing(value: Any) -> None:
    error = refusal(value)
    if error is None:
        assert isinstance(value, dict)
        assert set(value) <= set(FULL)
    else:
        assert error.error_code == "input_constraint_violated"
        assert CANARY not in f"{error}{error.detail}"
