"""Closed vocabularies. Adding a word here is a contract change: schemas and tests must follow."""

from __future__ import annotations

from typing import Literal, get_args

ArtifactStatus = Literal["ok", "empty", "error"]
PlatformId = Literal["youtube", "upload"]
ComponentKind = Literal["segmenter", "core", "module", "audio", "text", "dataset", "other"]
RetentionClass = Literal["derived", "frames", "raw_text"]
Runtime = Literal["inprocess", "triton"]
"""What executes a model: the process that needs it, or a model server."""
Processor = Literal["segmenter", "visual", "audio", "text", "dataset"]
ComponentState = Literal["waiting", "running", "success", "empty", "error", "skipped"]
"""Also the states of a processor."""
RunState = Literal["pending", "queued", "running", "recovering", "success", "error", "cancelled"]
RunStage = Literal["ingest", "segmenter", "visual", "audio", "text", "features"]
"""How far a run has come, in this order."""

ARTIFACT_STATUSES: frozenset[str] = frozenset(get_args(ArtifactStatus))
PLATFORM_IDS: frozenset[str] = frozenset(get_args(PlatformId))
COMPONENT_KINDS: frozenset[str] = frozenset(get_args(ComponentKind))
RUNTIMES: frozenset[str] = frozenset(get_args(Runtime))
RETENTION_CLASSES: frozenset[str] = frozenset(get_args(RetentionClass))
PROCESSORS: frozenset[str] = frozenset(get_args(Processor))
RUN_STAGES: tuple[str, ...] = get_args(RunStage)

EMPTY_REASONS: frozenset[str] = frozenset(
    {
        "audio_missing_or_extract_failed",
        "audio_silent",
        "audio_too_short",
        "no_faces_in_video",
        "no_person_detections",
        "no_detections_above_threshold",
        "no_text_available",
        "no_text_detected",
        "ocr_disabled_by_policy",
        "comments_missing_or_disabled",
        "transcript_missing_for_source_whisper",
        "too_few_frames",
        "video_too_short",
        "tempo_all_segments_failed",
        "voice_quality_all_segments_failed",
        "all_extractors_empty",
        "no_pose_detected",
        "no_hands_detected",
        "no_logo_proposals",
        "no_valid_crops",
        "no_places_detected",
        "no_faces_processed",
        "upstream_empty",
    }
)

WARNINGS: frozenset[str] = frozenset(
    {
        "sampling_shortfall",
        "av_drift",
        "truncated_stream",
        "decode_errors",
        "timestamps_repaired",
        "duration_estimated",
        "hdr_tonemapped",
        "media_repaired",
        "near_uniform_probs",
        "low_valid_ratio",
        "large_sampling_gap",
        "partial_failure",
        "small_source_file",
    }
)
