"""Plain sentences for the closed vocabularies. A word without a sentence is a test failure."""

from __future__ import annotations

from trendflow.contracts.errors import ERROR_RULES

EMPTY_REASON_TEXTS: dict[str, str] = {
    "audio_missing_or_extract_failed": "The source has no audio stream.",
    "audio_silent": "The audio is silent: every window is below −60 dBFS.",
    "audio_too_short": "The audio is shorter than this component's window.",
    "no_faces_in_video": "The detector looked at every sampled frame and found no face.",
    "no_person_detections": "No sampled frame shows a person.",
    "no_detections_above_threshold": "The detector found nothing above its score threshold.",
    "no_text_available": "The video has no title, description or transcript.",
    "no_text_detected": "Text recognition ran and found no text.",
    "ocr_disabled_by_policy": "Text recognition is switched off by policy.",
    "comments_missing_or_disabled": "Comments are missing or switched off at the source.",
    "transcript_missing_for_source_whisper": "No transcript is available from speech recognition.",
    "too_few_frames": "The video has fewer sampled frames than this component needs.",
    "video_too_short": "The video is shorter than this component needs.",
    "tempo_all_segments_failed": "No window carried enough evidence of a beat.",
    "voice_quality_all_segments_failed": "No window carried enough voiced speech.",
    "all_extractors_empty": "Every part of this component is empty.",
    "no_pose_detected": "No body pose was found.",
    "no_hands_detected": "No hands were found.",
    "no_logo_proposals": "No region looked like a logo.",
    "no_valid_crops": "No crop was large enough to analyse.",
    "no_places_detected": "No place was recognised.",
    "no_faces_processed": "Faces were found, but every one is too small to analyse.",
    "upstream_empty": "The component this one builds on is empty.",
}

WARNING_TEXTS: dict[str, str] = {
    "sampling_shortfall": "A component got fewer frames than the minimum it asks for.",
    "av_drift": "Audio and video end more than one second apart.",
    "truncated_stream": "The file ends early; only the decoded part was analysed.",
    "decode_errors": "Some packets could not be decoded.",
    "timestamps_repaired": "Some time stamps were missing or out of order and were interpolated.",
    "duration_estimated": "The container states no duration; it was measured from time stamps.",
    "hdr_tonemapped": "High dynamic range video was tone-mapped to standard range.",
    "media_repaired": "The source was damaged and had to be re-encoded before analysis.",
    "near_uniform_probs": "Prompt probabilities are close to uniform and were not used.",
    "low_valid_ratio": "More than 60 % of a model-facing array is missing.",
    "large_sampling_gap": "Neighbouring sampled frames are more than 6 s apart.",
    "partial_failure": "An optional component failed, which alone does not fail a run.",
    "small_source_file": "The downloaded file is unusually small.",
}

STATUS_TEXTS: dict[str, str] = {
    "ok": "OK",
    "empty": "Empty",
    "error": "Error",
    "skipped": "Skipped",
    "success": "Success",
    "running": "Running",
    "pending": "Waiting",
    "cancelled": "Cancelled",
}

_CLASS_TEXTS = {
    "transient": "Temporary: running again may help.",
    "permanent": "Permanent: running the same input again will not help.",
    "contract": "An input, a file or a setting broke a rule; running again will not help.",
}


def empty_text(reason: str | None) -> str:
    return EMPTY_REASON_TEXTS.get(reason or "", "The subject of this component is absent from the video.")


def warning_text(code: str) -> str:
    return WARNING_TEXTS.get(code, "")


def advice(error_code: str | None) -> str:
    """What the class of an error code means for the reader."""
    rule = ERROR_RULES.get(error_code or "")
    return _CLASS_TEXTS[rule.error_class] if rule else ""
