"""The text that comes with a video: title, description, tags and, if there is one, a transcript.

It lives in memory only. What is stored of it is its digest, and no error quotes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError

MAX_DOCUMENT_BYTES = 4 << 20


@dataclass(frozen=True)
class TranscriptSegment:
    """What was said from `start` to `end` (seconds); `confidence` in [0, 1] where the source states one."""

    start: float
    end: float
    text: str = field(repr=False)
    confidence: float | None = None


@dataclass(frozen=True)
class Transcript:
    """Segments in order of time. `source` says who made it, `observed_at` (UTC, ISO 8601) when it was captured."""

    source: str
    observed_at: str
    segments: tuple[TranscriptSegment, ...] = field(repr=False)


@dataclass(frozen=True)
class VideoDocument:
    """The text of one video. A part that is None or empty was not there; the texts stay out of `repr`."""

    title: str | None = field(default=None, repr=False)
    description: str | None = field(default=None, repr=False)
    tags: tuple[str, ...] = field(default=(), repr=False)
    language: str | None = None
    transcript: Transcript | None = None

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON of everything a component may read here."""
        return digest_of(asdict(self))


def parse_document(data: bytes) -> VideoDocument:
    """A document from its JSON text: an object with any of `title description tags language transcript`.

    `transcript` holds `source`, `observed_at` and `segments`, each with `start`, `end`, `text` and optionally
    `confidence`. Raises `input_constraint_violated` naming the field, never its content.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise _refused("", f"has more than {MAX_DOCUMENT_BYTES} bytes")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        # Without the cause: a decoding error carries the whole text.
        raise _refused("", "is not JSON in UTF-8") from None
    body = _object(value, "", ("title", "description", "tags", "language", "transcript"))
    tags = body.get("tags")
    return VideoDocument(
        title=_text(body, "title", ""),
        description=_text(body, "description", ""),
        tags=tuple(_string(tag, "tags") for tag in _list(tags, "tags")) if tags is not None else (),
        language=_text(body, "language", ""),
        transcript=_transcript(body["transcript"]) if body.get("transcript") is not None else None,
    )


def _transcript(value: Any) -> Transcript:
    where = "transcript"
    body = _object(value, where, ("source", "observed_at", "segments"))
    observed_at = _string(body.get("observed_at"), f"{where}.observed_at")
    try:
        aware = datetime.fromisoformat(observed_at).tzinfo is not None
    except ValueError:
        aware = False
    if not aware:
        raise _refused(f"{where}.observed_at", "is not an ISO 8601 time with a time zone")
    segments = tuple(_segment(item) for item in _list(body.get("segments"), f"{where}.segments"))
    if any(later.start < earlier.start for earlier, later in pairwise(segments)):
        raise _refused(f"{where}.segments", "is not in order of time")
    return Transcript(_string(body.get("source"), f"{where}.source"), observed_at, segments)


def _segment(value: Any) -> TranscriptSegment:
    where = "transcript.segments"
    body = _object(value, where, ("start", "end", "text", "confidence"))
    start, end = _number(body.get("start"), f"{where}.start"), _number(body.get("end"), f"{where}.end")
    if not 0 <= start <= end:
        raise _refused(where, "has a segment that ends before it starts")
    confidence = body.get("confidence")
    if confidence is not None:
        confidence = _number(confidence, f"{where}.confidence")
        if not 0 <= confidence <= 1:
            raise _refused(f"{where}.confidence", "is outside 0 to 1")
    return TranscriptSegment(start, end, _string(body.get("text"), f"{where}.text"), confidence)


def _object(value: Any, where: str, known: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _refused(where, "is not an object")
    if set(value) - set(known):
        raise _refused(where, f"has a field other than {', '.join(known)}")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise _refused(where, "is not a list")
    return value


def _text(body: Mapping[str, Any], name: str, where: str) -> str | None:
    return None if body.get(name) is None else _string(body[name], f"{where}{name}")


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _refused(where, "is not a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        # An escaped half of a surrogate pair is valid JSON, but no text and no canonical JSON.
        raise _refused(where, "holds half of a surrogate pair") from None
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refused(where, "is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _refused(where, "is not a finite number")
    return number


def _refused(where: str, problem: str) -> TrendFlowError:
    subject = f"The field {where} of the document" if where else "The document"
    return TrendFlowError("input_constraint_violated", f"{subject} {problem}.", field=where)
