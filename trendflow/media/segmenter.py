"""The Segmenter: one source medium to everything later components may see.

The medium is only ever opened in the media child; this module plans the attempts, turns the child's report into
documents and artifacts, and writes `video/metadata.json` last, so that an interrupted run leaves no readable frames.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trendflow.contracts.artifact import Artifact, feature_arrays, row_splits
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.media import documents
from trendflow.media.audio_windows import AudioAxis, Windows, build_windows
from trendflow.media.frames_writer import DEFAULT_CHUNK_SIZE, Batch, digest_of_batches
from trendflow.media.geometry import DEFAULT_SHORT_SIDE
from trendflow.media.limits import MediaLimits
from trendflow.media.raster import THUMB_HEIGHT, THUMB_WIDTH
from trendflow.media.sampling import ComponentSampling, has_large_gap
from trendflow.media.worker import Progress, run_job

SIGNALS_FILE, THUMBS_FILE = "signals.npz", "thumbs.u8"
PRIMARY_GROUP = "primary"
_WORK = ".work"


@dataclass(frozen=True)
class SegmentRequest:
    """Everything one segmentation depends on.

    `scratch` becomes the `frames_dir`; what an earlier attempt left there is removed. `families` maps audio families to
    the components that read them; only families with readers are written. At most one of `analysis_height` and
    `analysis_width` replaces the short side. `warnings` are those of the ingest.
    """

    identity: RunIdentity
    source: Path
    source_sha256: str
    components: Sequence[ComponentSampling]
    families: Mapping[str, Sequence[str]]
    scratch: Path
    created_at: str
    limits: MediaLimits = field(default_factory=MediaLimits)
    analysis_short_side: int = DEFAULT_SHORT_SIDE
    analysis_height: int | None = None
    analysis_width: int | None = None
    analysis_fps: float | None = None
    audio_sample_rate: int = 22050
    dense_thumbnails: bool = False
    chunk_size: int = DEFAULT_CHUNK_SIZE
    asr_mode: str = "semantic"
    asr_max_windows: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceFacts:
    """What was found out about the source. Sizes in pixels after rotation, times in seconds."""

    duration_sec: float
    declared_duration_sec: float | None
    width: int
    height: int
    source_fps: float
    frames: int
    audio_present: bool


@dataclass(frozen=True)
class Segmented:
    """Result of a segmentation. `artifact.extra["dense_signals"]` is the second artifact."""

    artifact: Artifact
    frames_dir: Path
    source: SourceFacts
    preprocessing: list[dict[str, Any]]


def probe(source: Path, limits: MediaLimits) -> dict[str, Any]:
    """Headers of a local file: `declared_duration_sec` (or None), `width`, `height`, `codec`, `audio_codec`.

    Raises `video_unreadable`, `source_unavailable` or `dependency_missing`.
    """
    return run_job({"kind": "probe", "source": str(source)}, limits, timeout_sec=60.0)


def segment(request: SegmentRequest, progress: Progress | None = None) -> Segmented:
    """Decode the source into `request.scratch`; `progress(done, total)` counts decoded frames.

    Raises `video_unreadable`, `video_file_corrupted` (after the repair ladder), `input_constraint_violated`,
    `dependency_missing`, `storage_unavailable` or `timeout`.
    """
    started = time.perf_counter()
    _clear(request.scratch)
    for folder in (_WORK, "video", "audio"):
        (request.scratch / folder).mkdir(parents=True)
    report, preprocessing, repaired = _decode_with_repair(request, progress)
    decoded_at = time.perf_counter()
    if repaired:
        report["warnings"].append("media_repaired")
    signals = _load_signals(request.scratch / _WORK, request.dense_thumbnails)
    found = _Found(request, report, signals)
    found.write_documents()
    timings = dict(report["stage_timings_ms"])
    timings["child"] = round((decoded_at - started) * 1000.0, 3)
    timings["documents"] = round((time.perf_counter() - decoded_at) * 1000.0, 3)
    return Segmented(found.artifact(timings), request.scratch, found.source_facts(), preprocessing)


def _clear(scratch: Path) -> None:
    # The marker of completeness goes first: a half-removed folder must not look complete.
    (scratch / documents.VIDEO_METADATA).unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True, exist_ok=True)


def _decode_with_repair(
    request: SegmentRequest, progress: Progress | None
) -> tuple[dict[str, Any], list[dict[str, Any]], bool]:
    """Tolerant decoding; if that fails for damage, once more on a re-encoded copy. Logs every step.

    Returns the child's report, the log and whether the copy was used.
    """
    deadline = time.monotonic() + request.limits.segmenter_timeout_sec
    log: list[dict[str, Any]] = []
    try:
        report = _decode(request, request.source, None, deadline, progress)
        log.append(_log_entry("tolerant_decode", "accepted", report))
        return report, log, False
    except TrendFlowError as exc:
        if not exc.detail.pop("repairable", False):
            raise
        log.append({"step": "tolerant_decode", "outcome": "refused", "reason": exc.message})
        declared = exc.detail.get("declared_duration_sec")
    deadline = min(deadline, time.monotonic() + request.limits.repair_timeout_sec)
    copy = request.scratch / _WORK / "repaired.mkv"
    try:
        job = {"kind": "reencode", "source": str(request.source.absolute()), "target": str(copy.absolute())}
        run_job(job, request.limits, timeout_sec=deadline - time.monotonic())
        report = _decode(request, copy, declared, deadline, progress)
    except TrendFlowError as exc:
        exc.detail.pop("repairable", None)
        if exc.error_code not in ("timeout", "video_unreadable", "input_constraint_violated", "video_file_corrupted"):
            raise
        raise TrendFlowError(
            "video_file_corrupted", f"The video is damaged and could not be repaired: {exc.message}", steps=log
        ) from exc
    finally:
        copy.unlink(missing_ok=True)
    log.append(_log_entry("reencode", "accepted", report))
    return report, log, True


def _log_entry(step: str, outcome: str, report: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "step": step,
        "outcome": outcome,
        "decode_error_ratio": report["video"]["decode_error_ratio"],
        "duration_sec": report["video"]["duration_sec"],
    }


def _decode(
    request: SegmentRequest, source: Path, declared: float | None, deadline: float, progress: Progress | None
) -> dict[str, Any]:
    scratch = request.scratch.absolute()
    job = {
        "kind": "segment",
        "source": str(source.absolute()),
        "declared_duration_sec": declared,
        "work": str(scratch / _WORK),
        "video_folder": str(scratch / "video"),
        "audio_folder": str(scratch / "audio"),
        "components": [asdict(item) for item in request.components],
        "analysis_size": {
            "short_side": request.analysis_short_side,
            "height": request.analysis_height,
            "width": request.analysis_width,
        },
        "analysis_fps": request.analysis_fps,
        "audio_sample_rate": request.audio_sample_rate,
        "chunk_size": request.chunk_size,
        "dense_thumbnails": request.dense_thumbnails,
    }
    return run_job(job, request.limits, timeout_sec=deadline - time.monotonic(), progress=progress)


def _load_signals(work: Path, with_thumbnails: bool) -> dict[str, np.ndarray]:
    with np.load(work / SIGNALS_FILE, allow_pickle=False) as stored:
        signals = {name: stored[name] for name in stored.files}
    if with_thumbnails:
        # Mapped, not read: thumbnails of a long video are the only large array here.
        shape = (len(signals["pts"]), THUMB_HEIGHT, THUMB_WIDTH, 3)
        signals["thumb_rgb"] = np.memmap(work / THUMBS_FILE, dtype=np.uint8, mode="r", shape=shape)
    return signals


class _Found:
    """Derives documents and artifacts from one report."""

    def __init__(self, request: SegmentRequest, report: dict[str, Any], signals: dict[str, np.ndarray]) -> None:
        self._request = request
        self._report = report
        self._signals = signals
        self._video = report["video"]
        self._audio = report["audio"]
        self._plan = report["plan"]
        self._union_source = np.array(self._plan["union_source"], dtype=np.int64)
        self._union_times = signals["pts_sec"][self._union_source]
        self._indices = {name: np.array(v, dtype=np.int32) for name, v in self._plan["indices"].items()}
        duration = self._video["duration_sec"]
        self._drift = abs(self._audio["end_sec"] - duration) if self._audio is not None else None
        self._frames_digest = digest_of_batches([Batch(**item) for item in report["batches"]])
        source_fps = self._video["source_fps"]
        self._analysis_fps = min(request.analysis_fps or source_fps, source_fps)
        self._windows = self._build_windows()
        self._warnings = self._all_warnings()

    def _all_warnings(self) -> tuple[str, ...]:
        found = [*self._request.warnings, *self._report["warnings"]]
        if self._plan["shortfall"]:
            found.append("sampling_shortfall")
        if has_large_gap(self._union_times, self._indices):
            found.append("large_sampling_gap")
        return tuple(dict.fromkeys(found))

    def _build_windows(self) -> list[Windows]:
        if self._audio is None:
            return []
        members = self._plan["groups"].get(PRIMARY_GROUP, [])
        axis = AudioAxis(
            video_duration_sec=self._video["duration_sec"],
            audio_start_sec=max(0.0, self._audio["offset_sec"]),
            audio_end_sec=self._audio["end_sec"],
            sample_rate=self._audio["sample_rate"],
            total_samples=self._audio["total_samples"],
            primary_times=self._union_times[self._indices[members[0]]] if members else None,
            union_times=self._union_times,
        )
        wanted = [name for name, readers in self._request.families.items() if readers]
        return build_windows(
            wanted, axis, asr_mode=self._request.asr_mode, asr_max_windows=self._request.asr_max_windows
        )

    def write_documents(self) -> None:
        request, scratch = self._request, self._request.scratch
        stamp = (request.identity, request.created_at)
        rate = request.audio_sample_rate
        audio = documents.audio_metadata(*stamp, self._audio, rate, self._drift)
        segments = documents.segments_document(
            *stamp,
            video_duration_sec=self._video["duration_sec"],
            audio=self._audio,
            sample_rate=rate,
            windows=self._windows,
        )
        video = documents.video_metadata(
            *stamp,
            file_name=request.source.name,
            source_sha256=request.source_sha256,
            report=self._report,
            analysis_fps=self._analysis_fps,
            chunk_size=request.chunk_size,
            frames_digest=self._frames_digest,
            union_times=self._union_times,
            warnings=self._warnings,
        )
        for name, document in zip(documents.DOCUMENTS, (audio, segments, video), strict=True):
            documents.write_document(scratch / name, document)

    def artifact(self, timings: Mapping[str, float]) -> Artifact:
        geometry = self._report["geometry"]
        budgets = [self._plan["budgets"][name] for name in self._indices]
        arrays: dict[str, np.ndarray] = {
            "union_frame_indices_source": self._union_source,
            "union_timestamps_sec": self._union_times,
            "component_names": np.array(list(self._indices), dtype=np.str_),
            "component_indices": np.concatenate([np.empty(0, np.int32), *self._indices.values()]),
            "component_indices_row_splits": row_splits([len(v) for v in self._indices.values()]),
            "component_budget": np.array(budgets, dtype=np.int32).reshape(-1, 3),
            "family_names": np.array([found.family for found in self._windows], dtype=np.str_),
            **{
                f"segment_{name}": np.concatenate([np.empty(0, dtype), *(getattr(w, name) for w in self._windows)])
                for name, dtype in (
                    ("start_sec", np.float64), ("end_sec", np.float64), ("center_sec", np.float64), ("mask", np.bool_),
                )
            },
            "segment_row_splits": row_splits([len(found) for found in self._windows]),
            "frames_digest": np.array(self._frames_digest, dtype=np.str_),
            "audio_digest": np.array(self._audio["digest"] if self._audio is not None else "", dtype=np.str_),
            **feature_arrays(self._features()),
        }  # fmt: skip
        dense = {name: self._signals[name] for name in ("pts", "pts_sec", "corrupt_mask", *_SIGNAL_NAMES)}
        dense["time_base"] = np.array(self._video["time_base"], dtype=np.int64)
        if "thumb_rgb" in self._signals:
            dense["thumb_rgb"] = self._signals["thumb_rgb"]
        meta = {
            "total_frames": len(self._union_source),
            "analysis_fps": self._analysis_fps,
            "analysis_width": geometry["analysis_width"],
            "analysis_height": geometry["analysis_height"],
        }
        main = Artifact(
            arrays=arrays,
            warnings=self._warnings,
            meta={
                **meta,
                "absent_features": {} if self._drift is not None else {"av_drift_sec": "the source has no audio"},
                "resource_metrics": {"decoder_peak_rss_mb": self._report["peak_rss_mb"]},
            },
            stage_timings_ms=timings,
        )
        return replace(main, extra={"dense_signals": Artifact(arrays=dense, warnings=self._warnings, meta=meta)})

    def _features(self) -> dict[str, float]:
        video, audio, geometry = self._video, self._audio, self._report["geometry"]
        width, height = geometry["display_width"], geometry["display_height"]
        duration = video["duration_sec"]
        covered = 0.0
        if audio is not None:
            covered = max(0.0, min(audio["end_sec"], duration) - max(0.0, audio["offset_sec"])) / duration
        return {
            "duration_sec": duration,
            "source_fps": video["source_fps"],
            "analysis_fps": self._analysis_fps,
            "analysis_width": geometry["analysis_width"],
            "analysis_height": geometry["analysis_height"],
            "source_width": width,
            "source_height": height,
            "aspect_ratio": width / height,
            "is_portrait": height > width,
            "is_vfr": video["is_vfr"],
            "is_hdr": video["is_hdr"],
            "decode_error_ratio": video["decode_error_ratio"],
            "audio_present": audio is not None,
            "audio_channels": audio["source_channels"] if audio is not None else 0,
            "audio_coverage_ratio": covered,
            "av_drift_sec": self._drift if self._drift is not None else math.nan,
        }

    def source_facts(self) -> SourceFacts:
        video, geometry = self._video, self._report["geometry"]
        return SourceFacts(
            duration_sec=video["duration_sec"],
            declared_duration_sec=video["declared_duration_sec"],
            width=geometry["display_width"],
            height=geometry["display_height"],
            source_fps=video["source_fps"],
            frames=video["frames"],
            audio_present=self._audio is not None,
        )


_SIGNAL_NAMES = ("hist_l1", "luma_mean", "lowres_mad")
