"""The JSON documents of `frames_dir`: built here, and re-stamped here when frames are copied to another run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trendflow.contracts.identity import RunIdentity
from trendflow.media.audio_windows import Windows

MONO_NAME, FULL_NAME = "audio.wav", "audio_full.wav"
NO_AUDIO = "audio_missing_or_extract_failed"
VIDEO_METADATA = "video/metadata.json"
AUDIO_METADATA = "audio/metadata.json"
SEGMENTS = "audio/segments.json"
DOCUMENTS = (AUDIO_METADATA, SEGMENTS, VIDEO_METADATA)
"""In the order of writing: `video/metadata.json` comes last and marks the folder as complete."""

_CACHE_SIZE = 2  # batches a reader is advised to keep mapped


def video_metadata(
    identity: RunIdentity,
    created_at: str,
    *,
    file_name: str,
    source_sha256: str,
    report: Mapping[str, Any],
    analysis_fps: float,
    chunk_size: int,
    frames_digest: str,
    union_times: np.ndarray,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """`video/metadata.json` (schema `frames_metadata_v1`) from the child's report; paths are relative to its folder."""
    video, geometry, plan = report["video"], report["geometry"], report["plan"]
    width, height = geometry["analysis_width"], geometry["analysis_height"]
    union = plan["union_source"]
    return {
        "schema_version": "frames_metadata_v1",
        **identity.as_dict(),
        "created_at": created_at,
        "video_path": file_name,
        "source_sha256": source_sha256,
        "source_fps": video["source_fps"],
        "fps": video["source_fps"],
        "approx_frame_count": video["frames"],
        "source_total_frames_read": video["frames"],
        "source_width": geometry["display_width"],
        "source_height": geometry["display_height"],
        "rotation_deg": video["rotation_deg"],
        "sample_aspect_ratio": video["pixel_aspect"],
        "pixel_format": video["pixel_format"],
        "color_primaries": video["color_primaries"],
        "color_transfer": video["color_transfer"],
        "bit_depth": video["bit_depth"],
        "is_vfr": video["is_vfr"],
        "is_hdr": video["is_hdr"],
        "codec": video["codec"],
        "stream_index": video["stream_index"],
        "start_pts_sec": video["start_pts_sec"],
        "duration_sec": video["duration_sec"],
        "declared_duration_sec": video["declared_duration_sec"],
        "decode_error_ratio": video["decode_error_ratio"],
        "analysis_fps": analysis_fps,
        "analysis_width": width,
        "analysis_height": height,
        "height": height,
        "width": width,
        "channels": 3,
        "color_space": "RGB",
        "chunk_size": chunk_size,
        "batch_size": chunk_size,
        "cache_size": _CACHE_SIZE,
        "batches": report["batches"],
        "frames_digest": frames_digest,
        "total_frames": len(union),
        "union_frame_indices_source": union,
        "union_timestamps_sec": union_times.tolist(),
        "groups": plan["groups"],
        "shortfall": plan["shortfall"],
        "warnings": list(warnings),
        **{
            name: {
                "modality": "video",
                "frame_indices": positions,
                "num_indices": len(positions),
                "source_frame_indices": [union[k] for k in positions],
                "num_source_indices": len(positions),
                "budget": dict(zip(("min", "target", "max"), plan["budgets"][name], strict=True)),
            }
            for name, positions in plan["indices"].items()
        },
    }


def component_entries(metadata: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The per-component entries of `video/metadata.json`, which stand between its other keys."""
    return {name: value for name, value in metadata.items() if isinstance(value, dict) and "modality" in value}


def audio_metadata(
    identity: RunIdentity, created_at: str, audio: Mapping[str, Any] | None, sample_rate: int, drift_sec: float | None
) -> dict[str, Any]:
    """`audio/metadata.json` (schema `audio_metadata_v1`); `audio` is None without an audio stream."""
    found = audio if audio is not None else {}
    return {
        "schema_version": "audio_metadata_v1",
        **identity.as_dict(),
        "created_at": created_at,
        "audio_path": MONO_NAME if found else None,
        "audio_full_path": FULL_NAME if found else None,
        "duration_sec": found.get("end_sec"),
        "sample_rate": sample_rate,
        "total_samples": found.get("total_samples", 0),
        "channels": found.get("channels"),
        "channel_layout": found.get("channel_layout"),
        "source_sample_rate": found.get("source_sample_rate"),
        "audio_offset_sec": found.get("offset_sec"),
        "audio_present": bool(found),
        "empty_reason": None if found else NO_AUDIO,
        "av_drift_sec": drift_sec,
    }


def segments_document(
    identity: RunIdentity,
    created_at: str,
    *,
    video_duration_sec: float,
    audio: Mapping[str, Any] | None,
    sample_rate: int,
    windows: Sequence[Windows],
) -> dict[str, Any]:
    """`audio/segments.json` (schema `audio_segments_v1`)."""
    return {
        "schema_version": "audio_segments_v1",
        **identity.as_dict(),
        "created_at": created_at,
        "anchor_component": "core_clip",
        "time_axis_origin_sec": 0,
        "video_duration_sec": video_duration_sec,
        "audio_duration_sec": audio["end_sec"] if audio is not None else 0.0,
        "sample_rate": sample_rate,
        "total_samples": audio["total_samples"] if audio is not None else 0,
        "audio_present": audio is not None,
        "empty_reason": None if audio is not None else NO_AUDIO,
        "families": {found.family: found.as_dict() for found in windows},
    }


def restamp(document: Mapping[str, Any], identity: RunIdentity, created_at: str) -> dict[str, Any]:
    """The same document for another run."""
    return {**document, **identity.as_dict(), "created_at": created_at}


def encode_document(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=None, separators=(",", ":")).encode()


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write atomically and durably: a reader sees the complete document or none."""
    partial = path.with_name(f".{path.name}.part")
    with partial.open("wb") as file:
        file.write(encode_document(document))
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
