"""What the media child does with one untrusted file: probe it, segment it, or rewrite it.

A job is a mapping of JSON values and returns one; arrays travel as files below the job's work folder. Everything here
runs inside the limits of `trendflow.media.child`.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.audio import ExtractedAudio, audio_is_damaged, extract_audio
from trendflow.media.decode import DecodedVideo, Progress, decode_video
from trendflow.media.geometry import Geometry, Orientation, analysis_geometry, display_size
from trendflow.media.limits import MediaLimits
from trendflow.media.probe import (
    AudioFacts,
    VideoFacts,
    audio_facts,
    choose_audio,
    choose_video,
    open_media,
    video_facts,
)
from trendflow.media.repair import reencode, remux
from trendflow.media.sampling import ComponentSampling, SamplingPlan, drop_lost, plan_frames
from trendflow.media.scan import PacketScan, scan_packets
from trendflow.media.timeline import Timeline, build_timeline

SIGNALS_FILE = "signals.npz"
THUMBS_FILE = "thumbs.u8"
# A stream that ends earlier than declared by more than this was cut off; less is rounding of headers.
_TRUNCATED_SEC, _TRUNCATED_RATIO = 0.5, 0.02


class _AudioProcess:
    """Extracts the audio beside the video, in a forked process: the two would otherwise compete for the interpreter."""

    def __init__(self, work: Callable[[Fraction], ExtractedAudio], start: Fraction) -> None:
        self._work = work
        self._start = start
        context = multiprocessing.get_context("fork")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=self._run, args=(sender,), name="audio", daemon=True)
        self._process.start()
        sender.close()

    def _run(self, sender: Connection) -> None:
        try:
            sender.send(self._work(self._start))
        except Exception as exc:  # handed to the caller of `result`
            sender.send(exc)

    def result(self, start: Fraction) -> ExtractedAudio:
        """The audio relative to `start`; extracted again if that turned out to differ from what was expected."""
        try:
            outcome = self._receiver.recv()
        except EOFError as exc:
            raise TrendFlowError("video_file_corrupted", "The decoder process died on the audio of this file.") from exc
        self._process.join()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome if start == self._start else self._work(start)

    def close(self) -> None:
        self._process.kill()
        self._process.join()


@dataclass
class _Clock:
    """Wall time per stage in milliseconds."""

    stages: dict[str, float]
    _last: float

    @classmethod
    def start(cls) -> _Clock:
        return cls({}, time.perf_counter())

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage] = round((now - self._last) * 1000.0, 3)
        self._last = now


def run_job(job: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Run a job by its `kind`: `probe`, `segment`, `reencode` or `remux`."""
    # Three threads share the interpreter in short bursts; the default of 5 ms would make them wait for each other.
    sys.setswitchinterval(0.0005)
    kinds: dict[str, Callable[[Mapping[str, Any], Progress], dict[str, Any]]] = {
        "probe": _probe,
        "segment": _segment,
        "reencode": _reencode,
        "remux": _remux,
    }
    return kinds[job["kind"]](job, progress)


def _probe(job: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    with open_media(Path(job["source"])) as container:
        video = video_facts(container, choose_video(container))
        audio = audio_facts(choose_audio(container))
    return {
        "declared_duration_sec": video.declared_duration_sec,
        "width": video.width,
        "height": video.height,
        "codec": video.codec,
        "audio_codec": audio.codec if audio is not None else None,
    }


def _reencode(job: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    reencode(Path(job["source"]), Path(job["target"]))
    return {}


def _remux(job: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    remux([Path(path) for path in job["sources"]], Path(job["target"]))
    return {}


def _segment(job: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    path = Path(job["source"])
    work, video_folder, audio_folder = (Path(job[key]) for key in ("work", "video_folder", "audio_folder"))
    limits = MediaLimits(**job["limits"])
    clock = _Clock.start()
    with open_media(path) as container:
        video = video_facts(container, choose_video(container))
        audio_header = audio_facts(choose_audio(container))
    declared = job["declared_duration_sec"] or video.declared_duration_sec
    if declared is not None:
        limits.check_duration(declared)
    scan = scan_packets(path, video.index)
    if not scan.ticks:
        raise TrendFlowError("video_file_corrupted", "The video stream holds no data.", repairable=True)
    planned = build_timeline(scan.ticks, video.time_base, scan.last_duration, limits.max_bad_timestamp_ratio)
    if planned.duration_sec > limits.max_duration_sec:
        limits.check_duration(planned.duration_sec)
    clock.lap("scan")
    plan = plan_frames(
        planned.times,
        planned.duration_sec,
        [ComponentSampling(**item) for item in job["components"]],
        source_fps=planned.frame_rate,
        analysis_fps=job["analysis_fps"],
    )
    clock.lap("plan")
    audio: ExtractedAudio | None = None
    with ExitStack() as stack:
        # Forked here, before decoding starts threads.
        extraction = _start_audio(path, audio_header, planned, audio_folder, job["audio_sample_rate"], limits)
        if extraction is not None:
            stack.callback(extraction.close)
        decoded = _decode(path, video, scan, plan, video_folder, work, job, progress)
        clock.lap("decode")
        timeline = build_timeline(decoded.ticks, video.time_base, decoded.last_duration, limits.max_bad_timestamp_ratio)
        if extraction is not None:
            audio = extraction.result(int(timeline.ticks[0]) * video.time_base)
        clock.lap("audio")
    warnings = _judge(decoded, timeline, scan, video, declared, audio, limits)
    plan = drop_lost(plan, decoded.source_of_slot)
    np.savez(
        work / SIGNALS_FILE, allow_pickle=False, pts=timeline.ticks, pts_sec=timeline.times,
        corrupt_mask=decoded.corrupt, **decoded.signals,
    )  # fmt: skip
    clock.lap("write")
    return {
        "video": _video_report(video, decoded, timeline, planned.is_vfr, declared),
        "geometry": asdict(decoded.appearance.geometry),
        "plan": _plan_report(plan),
        "batches": [batch.as_dict() for batch in decoded.batches],
        "audio": asdict(audio) if audio is not None else None,
        "warnings": warnings,
        "stage_timings_ms": clock.stages,
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def _start_audio(
    path: Path, header: AudioFacts | None, planned: Timeline, folder: Path, rate: int, limits: MediaLimits
) -> _AudioProcess | None:
    if header is None:
        return None
    max_end_sec = planned.duration_sec + 2 * limits.av_drift_max_sec

    def work(start: Fraction) -> ExtractedAudio:
        return extract_audio(path, header.index, start, folder, rate, max_end_sec)

    return _AudioProcess(work, int(planned.ticks[0]) * planned.time_base)


def _decode(
    path: Path,
    video: VideoFacts,
    scan: PacketScan,
    plan: SamplingPlan,
    folder: Path,
    work: Path,
    job: Mapping[str, Any],
    progress: Progress,
) -> DecodedVideo:
    def geometry(frame: VideoFrame, orientation: Orientation) -> Geometry:
        width, height = display_size(frame.width, frame.height, video.pixel_aspect, orientation)
        return analysis_geometry(width, height, **job["analysis_size"])

    with ExitStack() as stack:
        on_thumbnail = None
        if job["dense_thumbnails"]:
            file = stack.enter_context((work / THUMBS_FILE).open("wb"))

            def on_thumbnail(thumb: np.ndarray) -> None:
                file.write(np.ascontiguousarray(thumb).data)

        return decode_video(
            path,
            video.index,
            scan.ticks,
            plan.union_source.tolist(),
            geometry,
            folder,
            chunk_size=job["chunk_size"],
            on_thumbnail=on_thumbnail,
            progress=progress,
        )


def _judge(
    decoded: DecodedVideo,
    timeline: Timeline,
    scan: PacketScan,
    video: VideoFacts,
    declared: float | None,
    audio: ExtractedAudio | None,
    limits: MediaLimits,
) -> list[str]:
    """Warnings of an acceptable decode; raises for one that is not.

    `detail.repairable` marks damage that decoding a re-encoded copy may get around.
    """
    duration = timeline.duration_sec
    reached = duration
    if not video.declared_by_stream and audio is not None:
        reached = max(duration, audio.end_sec)  # the container's length may be that of the audio
    missing = (declared - reached) if declared is not None else 0.0
    truncated = missing > max(_TRUNCATED_SEC, _TRUNCATED_RATIO * (declared or 0.0)) or not scan.complete
    damaged = decoded.failed_packets > 0 or bool(decoded.corrupt.any())
    too_short = declared is not None and reached < limits.min_decoded_ratio * declared
    if (truncated or damaged) and (too_short or duration < limits.min_duration_sec):
        raise TrendFlowError(
            "video_file_corrupted",
            f"Only {duration:.2f} s of the video can be decoded.",
            repairable=True,
            duration_sec=duration,
            declared_duration_sec=declared,
        )
    if decoded.failed_packets > limits.max_failed_packet_ratio * decoded.packets:
        raise TrendFlowError(
            "video_file_corrupted",
            f"{decoded.failed_packets} of {decoded.packets} video packets cannot be decoded.",
            repairable=True,
            declared_duration_sec=declared,
        )
    limits.check_duration(duration)
    warnings = {
        "truncated_stream": truncated,
        "decode_errors": damaged,
        "timestamps_repaired": timeline.repaired > 0,
        "duration_estimated": declared is None,
        "hdr_tonemapped": decoded.appearance.colour.is_hdr,
    }
    if audio is not None:
        drift = abs(audio.end_sec - duration)
        if drift > limits.av_drift_max_sec:
            raise TrendFlowError(
                "video_file_corrupted", f"Audio and video end {drift:.1f} s apart.", av_drift_sec=drift
            )
        if audio_is_damaged(audio, limits.max_failed_packet_ratio):
            raise TrendFlowError(
                "video_file_corrupted",
                f"{audio.failed_packets} of {audio.packets} audio packets cannot be decoded.",
                repairable=True,
                declared_duration_sec=declared,
            )
        warnings["av_drift"] = drift > limits.av_drift_warn_sec
    return [name for name, raised in warnings.items() if raised]


def _video_report(
    video: VideoFacts, decoded: DecodedVideo, timeline: Timeline, is_vfr: bool, declared: float | None
) -> dict[str, Any]:
    damaged = decoded.failed_packets + int(decoded.corrupt.sum())
    colour = decoded.appearance.colour
    return {
        "stream_index": video.index,
        "codec": video.codec,
        "time_base": [video.time_base.numerator, video.time_base.denominator],
        "pixel_format": video.pixel_format,
        "pixel_aspect": "{0.numerator}:{0.denominator}".format(video.pixel_aspect or Fraction(1)),
        "rotation_deg": decoded.appearance.orientation.clockwise_deg,
        "color_primaries": colour.primaries_name,
        "color_transfer": colour.transfer_name,
        "bit_depth": colour.bit_depth,
        "is_hdr": colour.is_hdr,
        "is_vfr": is_vfr,  # of the packets: a lost frame does not make the source variable
        "frames": len(timeline.ticks),
        "source_fps": timeline.frame_rate,
        "start_pts_sec": timeline.start_sec,
        "duration_sec": timeline.duration_sec,
        "declared_duration_sec": declared,
        "decode_error_ratio": min(1.0, damaged / max(decoded.packets, 1)),
    }


def _plan_report(plan: SamplingPlan) -> dict[str, Any]:
    return {
        "union_source": plan.union_source.tolist(),
        "indices": {name: found.tolist() for name, found in plan.indices.items()},
        "groups": {name: list(members) for name, members in plan.groups.items()},
        "budgets": {name: list(budget) for name, budget in plan.budgets.items()},
        "candidates": plan.candidates,
        "shortfall": {name: found.as_dict() for name, found in plan.shortfall.items()},
    }
