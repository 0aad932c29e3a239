"""The JSON documents of a run against their schemas."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import component_row_from_meta, new_manifest, skip_component, update_run, upsert_row
from trendflow.contracts.meta import error_meta
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow_tests.contracts.valid_artifacts import IDENTITY, valid_artifact

REGISTRY = SchemaRegistry.load()
NOW = "2026-01-02T03:04:05.678Z"
HEX = "a" * 64
Document = dict[str, Any]


def run_request() -> Document:
    return {
        "schema_version": "run_request_v1",
        **IDENTITY.as_dict(),
        "profile": "starter",
        "video_source": {"type": "local_path", "locator": "/videos/clip 1.mp4", "sha256": None},
        "force_recompute": False,
        "created_at": NOW,
    }


def manifest() -> Document:
    """A run with one finished, one failed and one skipped component, made by the functions that make real ones."""
    schema = REGISTRY.get("core_clip_npz_v3")
    _, meta = valid_artifact(schema)
    artifact = {
        "path": "core_clip/core_clip.npz",
        "type": "npz",
        "size": 1000,
        "sha256": HEX,
        "content_digest": HEX,
        "schema_version": schema.schema_version,
        "retention_class": "derived",
    }
    failed = error_meta(
        IDENTITY,
        TrendFlowError("timeout", "Too slow."),
        producer="cut_detection",
        producer_version="1.0.0",
        schema_version="cut_detection_npz_v2",
        idempotency_key=None,
        input_digest=None,
    )
    times: Document = {"started_at": NOW, "finished_at": NOW, "duration_ms": 12.5}
    made = new_manifest(IDENTITY, NOW, "starter", {"type": "upload"})
    made = update_run(
        made,
        source={"type": "upload", "sha256": HEX, "bytes": 5, "duration_sec": 8.3},
        resolved_models={"image_encoder": {"entry": "net@1", "engine": "onnx", "precision": "fp32", "device": "cpu"}},
        frames_dir={"store_key": f"frames_store/{IDENTITY.run_path}", "expires_at": NOW},
        finished_at=NOW,
    )
    made = upsert_row(made, component_row_from_meta(meta, kind="core", artifacts=[artifact], **times))
    path = "cut_detection/cut_detection.npz"
    made = upsert_row(
        made, component_row_from_meta(failed, kind="module", artifacts=[{**artifact, "path": path}], **times)
    )
    return skip_component(made, "tempo_extractor", "segmenter ended in error")


def frames_metadata() -> Document:
    section = {
        "modality": "video",
        "frame_indices": [0, 1],
        "num_indices": 2,
        "source_frame_indices": [0, 7],
        "num_source_indices": 2,
        "budget": {"min": 1, "target": 2, "max": 3},
    }
    return {
        "schema_version": "frames_metadata_v1",
        **IDENTITY.as_dict(),
        "created_at": NOW,
        "video_path": "clip.mp4",
        "source_sha256": HEX,
        "source_fps": 24.0,
        "fps": 24.0,
        "approx_frame_count": None,
        "source_total_frames_read": 8,
        "source_width": 640,
        "source_height": 360,
        "rotation_deg": 90,
        "sample_aspect_ratio": "1:1",
        "pixel_format": "yuv420p",
        "color_primaries": None,
        "color_transfer": "bt709",
        "bit_depth": 8,
        "is_vfr": False,
        "is_hdr": False,
        "codec": "h264",
        "stream_index": 0,
        "start_pts_sec": -0.5,
        "duration_sec": 8.0,
        "declared_duration_sec": None,
        "decode_error_ratio": 0.0,
        "analysis_fps": 24.0,
        "analysis_width": 568,
        "analysis_height": 320,
        "height": 320,
        "width": 568,
        "channels": 3,
        "color_space": "RGB",
        "chunk_size": 64,
        "batch_size": 64,
        "cache_size": 2,
        "batches": [{"batch_index": 0, "path": "batch_00000.npy", "start_frame": 0, "end_frame": 2, "sha256": HEX}],
        "frames_digest": HEX,
        "total_frames": 2,
        "union_frame_indices_source": [0, 7],
        "union_timestamps_sec": [0.0, 7.5],
        "groups": {"primary": ["core_clip"]},
        "shortfall": {"core_clip": {"wanted_min": 200, "got": 2, "cause": "source_frames"}},
        "warnings": ["sampling_shortfall"],
        "core_clip": section,
    }


def audio_metadata() -> Document:
    return {
        "schema_version": "audio_metadata_v1",
        **IDENTITY.as_dict(),
        "created_at": NOW,
        "audio_path": "audio.wav",
        "audio_full_path": "audio_full.wav",
        "duration_sec": 8.0,
        "sample_rate": 22050,
        "total_samples": 176400,
        "channels": 2,
        "channel_layout": "stereo",
        "source_sample_rate": 48000,
        "audio_offset_sec": -0.02,
        "audio_present": True,
        "empty_reason": None,
        "av_drift_sec": 0.01,
    }


def audio_segments() -> Document:
    segment = {
        "index": 0,
        "start_sec": -1.0,
        "end_sec": 1.0,
        "center_sec": 0.0,
        "start_sample": 0,
        "end_sample": 22050,
        "mask": False,
    }
    family = {"window_sec": 2.0, "stride_sec": None, "placement": "anchors", "segments": [segment]}
    return {
        "schema_version": "audio_segments_v1",
        **IDENTITY.as_dict(),
        "anchor_component": "core_clip",
        "time_axis_origin_sec": 0,
        "video_duration_sec": 8.0,
        "audio_duration_sec": 8.0,
        "sample_rate": 22050,
        "total_samples": 176400,
        "audio_present": True,
        "empty_reason": None,
        "families": {"primary": family},
        "created_at": NOW,
    }


DOCUMENTS = {
    "run_request_v1": run_request,
    "manifest_v1": manifest,
    "frames_metadata_v1": frames_metadata,
    "audio_metadata_v1": audio_metadata,
    "audio_segments_v1": audio_segments,
}


def changed(document: Document, path: str, value: Any) -> Document:
    """A copy with the value at a dotted path replaced."""
    made = copy.deepcopy(document)
    *way, last = path.split(".")
    place: Any = made
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[last] = value
    return made


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_complete_document_passes(name):
    assert validate_document(REGISTRY, name, DOCUMENTS[name]()) == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_field_is_needed_and_none_may_be_invented(name):
    document = DOCUMENTS[name]()
    for key in set(document) - {"force_recompute", "core_clip"}:
        rest = {other: value for other, value in document.items() if other != key}
        assert any(f"'{key}' is a required property" in problem for problem in validate_document(REGISTRY, name, rest))
    assert validate_document(REGISTRY, name, {**document, "Invented": 1})


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("run_request_v1", "video_source.locator", "videos/relative.mp4"),
        ("run_request_v1", "video_source.locator", "ftp://host/clip.mp4"),
        ("run_request_v1", "video_source.type", "tape"),
        ("run_request_v1", "video_source.sha256", "A" * 64),
        ("run_request_v1", "platform_id", "elsewhere"),
        ("run_request_v1", "video_id", "../escape"),
        ("run_request_v1", "created_at", "2026-01-02"),
        ("manifest_v1", "components.0.status", "success"),
        ("manifest_v1", "components.0.status", "empty"),
        ("manifest_v1", "components.0.empty_reason", "audio_silent"),
        ("manifest_v1", "components.0.error_code", "timeout"),
        ("manifest_v1", "components.0.cache_hit", True),
        ("manifest_v1", "components.0.idempotency_key", None),
        ("manifest_v1", "components.0.artifacts", []),
        ("manifest_v1", "components.0.artifacts.0.path", "../core_clip.npz"),
        ("manifest_v1", "components.0.artifacts.0.retention_class", "forever"),
        ("manifest_v1", "components.1.error", None),
        ("manifest_v1", "run.warnings", ["odd"]),
        ("manifest_v1", "run.source.path", "/videos/clip.mp4"),
        ("frames_metadata_v1", "video_path", "/videos/clip.mp4"),
        ("frames_metadata_v1", "core_clip.frame_indices", [1, 1]),
        ("frames_metadata_v1", "core_clip.modality", "audio"),
        ("frames_metadata_v1", "shortfall.core_clip.cause", "laziness"),
        ("frames_metadata_v1", "color_space", "BGR"),
        ("frames_metadata_v1", "rotation_deg", 45),
        ("audio_metadata_v1", "audio_present", False),
        ("audio_metadata_v1", "empty_reason", "audio_silent"),
        ("audio_segments_v1", "audio_present", False),
        ("audio_segments_v1", "anchor_component", "cut_detection"),
        ("audio_segments_v1", "families.primary.segments", []),
        ("audio_segments_v1", "families.primary.placement", "random"),
        ("audio_segments_v1", "families.primary.segments.0.start_sample", -1),
    ],
)
def test_one_wrong_value_is_found(name, path, value):
    assert validate_document(REGISTRY, name, changed(DOCUMENTS[name](), path, value))


def test_a_source_without_audio_is_valid():
    absent = {"audio_present": False, "empty_reason": "audio_missing_or_extract_failed", "total_samples": 0}
    files = ("audio_path", "audio_full_path", "duration_sec", "sample_rate", "channels", "channel_layout")
    facts = ("source_sample_rate", "audio_offset_sec", "av_drift_sec")
    silent = {**audio_metadata(), **absent, **dict.fromkeys((*files, *facts))}
    assert validate_document(REGISTRY, "audio_metadata_v1", silent) == []
    none = {**audio_segments(), **absent, "families": {}, "audio_duration_sec": None, "sample_rate": None}
    assert validate_document(REGISTRY, "audio_segments_v1", none) == []


def test_problems_name_the_place_and_never_quote_the_value():
    secret = "https://host/private?token=abc def"
    problems = validate_document(REGISTRY, "run_request_v1", changed(run_request(), "video_source.locator", secret))
    assert len(problems) == 1
    assert problems[0].startswith("$.video_source.locator: ")
    assert "token" not in problems[0]


def test_an_unknown_document_schema_is_a_configuration_error():
    with pytest.raises(TrendFlowError) as caught:
        validate_document(REGISTRY, "manifest_v9", {})
    assert caught.value.error_code == "config_invalid"


def test_validating_arrays_imports_no_json_schema_library():
    code = (
        "import sys; from trendflow.contracts.schema import SchemaRegistry; SchemaRegistry.load();"
        "print(sorted({'jsonschema', 'referencing', 'yaml', 'dagster'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
