"""What each component must make of each film, by the specification."""

from __future__ import annotations

NO_AUDIO = "audio_missing_or_extract_failed"

EMPTY: dict[str, dict[str, str]] = {
    "segmenter": {},
    "core_clip": {},
    "core_depth_midas": {},
    # A row is a pair of frames.
    "core_optical_flow": {"one_frame": "too_few_frames", "one_sample": "too_few_frames"},
    "core_object_detections": dict.fromkeys(
        ("black", "white", "twenty_minutes", "four_by_two_pixels"), "no_detections_above_threshold"
    ),
    "core_face_landmarks": dict.fromkeys(
        ("black", "white", "twenty_minutes", "four_by_two_pixels"), "no_faces_in_video"
    ),
    # It counts source frames, of which one sample may stand for many.
    "cut_detection": {"one_frame": "too_few_frames"},
    "scene_classification": {},
    "shot_quality": {},
    # At least 8 samples.
    "story_structure": dict.fromkeys(("one_frame", "two_frames", "one_sample"), "too_few_frames"),
    "video_pacing": dict.fromkeys(("one_frame", "two_frames", "one_sample"), "too_few_frames"),
    # At least two samples 2 s apart; the two frames are.
    "uniqueness": dict.fromkeys(("one_frame", "one_sample"), "too_few_frames"),
    "optical_flow": dict.fromkeys(("one_frame", "one_sample"), "upstream_empty"),
    "loudness_extractor": {"neither_sound_nor_text": NO_AUDIO, "digital_silence": "audio_silent"},
    "clap_extractor": {"neither_sound_nor_text": NO_AUDIO, "digital_silence": "audio_silent"},
    "tempo_extractor": {
        "neither_sound_nor_text": NO_AUDIO,
        "digital_silence": "audio_silent",
        "hard_clipping": "tempo_all_segments_failed",  # a steady tone has no beat
        "one_frame": "audio_too_short",  # 0.1 s of sound, no window of 2 s
    },
    "text_processor": {"neither_sound_nor_text": "no_text_available"},
    "feature_vector": {},
}
"""Component → film → empty reason. What is not listed must be `ok`; no cell may be an error."""

MEASURED_ALTHOUGH_EMPTY: dict[str, tuple[str, ...]] = {
    "core_object_detections": (
        "det_count_mean",
        "det_count_max",
        "person_frame_ratio",
        "person_count_mean",
        "person_count_max",
        "max_person_area_frac_mean",
        "group_frame_ratio__*",
    ),
    "core_face_landmarks": ("face_present_ratio", "face_count_mean", "face_count_max"),
    "loudness_extractor": ("silence_ratio", "clipping_ratio"),
    "clap_extractor": ("valid_window_ratio",),
    "tempo_extractor": ("tempo_valid_ratio",),
    "text_processor": ("tp_lex_present_*",),
}
"""Component → patterns of the counts and ratios that may keep a value in an empty result; all else is NaN there."""
