"""What the timing of a transcript says about the speech."""

from __future__ import annotations

from collections.abc import Sequence

from trendflow.components.text._constants import TEXT
from trendflow.components.text._text_form import character_count
from trendflow.contracts.video_document import TranscriptSegment

SPEECH_FEATURES = (
    "tp_asrproxy_confidence_present_rate",
    "tp_asrproxy_confidence_mean",
    "tp_asrproxy_speech_rate_wpm",
    "tp_asrproxy_speech_char_density",
    "tp_asrproxy_pause_ratio",
)


def speech_features(
    segments: Sequence[TranscriptSegment], text: str, word_count: int, video_s: float, audio_s: float
) -> dict[str, float]:
    """`SPEECH_FEATURES` of the segments that hold text.

    `text` is their joined plain text with `word_count` words; `video_s` is the length of the time axis, `audio_s` the
    seconds of audio on it. What is related to less than `min_timed_s` seconds is NaN.
    """
    confidences = [segment.confidence for segment in segments if segment.confidence is not None]
    spoken_s = covered_seconds(segments, video_s)
    values = (
        _ratio(len(confidences), len(segments)),
        _ratio(sum(confidences), len(confidences)),
        60.0 * _per_second(word_count, spoken_s),
        _per_second(character_count(text), audio_s),
        # Captions may run past audio that breaks off early.
        1.0 - min(_per_second(spoken_s, audio_s), 1.0),
    )
    return dict(zip(SPEECH_FEATURES, values, strict=True))


def covered_seconds(segments: Sequence[TranscriptSegment], end_s: float) -> float:
    """Seconds of [0, end_s] inside at least one segment; rolling captions overlap and must not count twice."""
    covered, reached = 0.0, 0.0
    for segment in sorted(segments, key=lambda segment: segment.start):
        stop = min(segment.end, end_s)
        covered += max(0.0, stop - max(segment.start, reached))
        reached = max(reached, stop)
    return covered


def _per_second(amount: float, seconds: float) -> float:
    return amount / seconds if seconds >= TEXT.min_timed_s else float("nan")


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else float("nan")
