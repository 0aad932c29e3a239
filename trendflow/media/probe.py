"""Opens a medium safely and reads what its headers say. Runs in the media child only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from trendflow.contracts.errors import TrendFlowError

# Containers of self-contained files. Playlist and list formats (HLS, DASH, concat, image sequences) stay out: they make
# the demuxer open other files and addresses. So do bare elementary streams, which carry no times.
DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,live_flv,asf,ogg,mxf,nut,ivf,gif,wtv,rm"
_TAG_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)\Z")


@dataclass(frozen=True)
class VideoFacts:
    """What the headers say of the chosen video stream. Times in seconds."""

    index: int
    codec: str
    time_base: Fraction
    pixel_format: str
    width: int
    height: int
    pixel_aspect: Fraction | None
    declared_duration_sec: float | None
    declared_by_stream: bool
    """False when only the container names a duration, which then covers the longest stream."""


@dataclass(frozen=True)
class AudioFacts:
    """What the headers say of the chosen audio stream."""

    index: int
    codec: str
    sample_rate: int
    channels: int


def open_media(path: Path) -> InputContainer:
    """Open a local file as a self-contained medium.

    Raises `source_unavailable` when the file is gone and `video_unreadable` when it is no medium this accepts.
    """
    try:
        return av.open(
            f"file:{path.absolute()}",
            metadata_errors="replace",
            options={
                "protocol_whitelist": "file",
                "format_whitelist": DEMUXERS,
                # Containers that store decoding times only (AVI) get their display times from libavformat.
                "fflags": "+genpts",
            },
        )
    except FileNotFoundError as exc:
        raise TrendFlowError("source_unavailable", "The source file does not exist.") from exc
    except (av.FFmpegError, OSError, ValueError) as exc:
        raise TrendFlowError("video_unreadable", "The source is not a readable media file.") from exc


def choose_video(container: InputContainer) -> VideoStream:
    """Largest width × height, then default disposition, then lowest index; attached pictures do not count.

    Raises `video_unreadable` without a video stream, `dependency_missing` when libav has no decoder for it.
    """
    streams = [s for s in container.streams.video if not s.disposition & _PICTURES]
    if not streams:
        raise TrendFlowError("video_unreadable", "The source has no video stream.")
    usable = [s for s in streams if s.codec_context is not None]
    if not usable:
        raise TrendFlowError("dependency_missing", "libav has no decoder for this video.", kind="decoder")
    best = min(usable, key=lambda s: (-s.codec_context.width * s.codec_context.height, *_order(s)))
    if best.codec_context.width <= 0 or best.codec_context.height <= 0:
        raise TrendFlowError("video_unreadable", "The video stream does not state its size.")
    return best


def choose_audio(container: InputContainer) -> AudioStream | None:
    """Most channels, then default disposition, then lowest index; None without an audio stream.

    Raises `dependency_missing` when libav has no decoder for any of them.
    """
    streams = list(container.streams.audio)
    if not streams:
        return None
    usable = [s for s in streams if s.codec_context is not None]
    if not usable:
        raise TrendFlowError("dependency_missing", "libav has no decoder for this audio.", kind="decoder")
    return min(usable, key=lambda s: (-s.codec_context.channels, *_order(s)))


def video_stream(container: InputContainer, index: int) -> VideoStream:
    return next(stream for stream in container.streams.video if stream.index == index)


def audio_stream(container: InputContainer, index: int) -> AudioStream:
    return next(stream for stream in container.streams.audio if stream.index == index)


def only(container: InputContainer, index: int) -> None:
    """Make the demuxer skip every other stream."""
    for other in container.streams:
        if other.index != index:
            other.discard = Discard.all


def video_facts(container: InputContainer, stream: VideoStream) -> VideoFacts:
    duration, by_stream = _declared_duration(container, stream)
    context = stream.codec_context
    return VideoFacts(
        index=stream.index,
        codec=context.codec.canonical_name,
        time_base=Fraction(stream.time_base or 1),
        pixel_format=context.pix_fmt or "unknown",
        width=context.width,
        height=context.height,
        pixel_aspect=stream.sample_aspect_ratio or None,
        declared_duration_sec=duration,
        declared_by_stream=by_stream,
    )


def audio_facts(stream: AudioStream | None) -> AudioFacts | None:
    if stream is None:
        return None
    context = stream.codec_context
    return AudioFacts(stream.index, context.codec.canonical_name, context.sample_rate, context.channels)


_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails


def _order(stream: VideoStream | AudioStream) -> tuple[bool, int]:
    return not stream.disposition & Disposition.default, stream.index


def _declared_duration(container: InputContainer, stream: VideoStream) -> tuple[float | None, bool]:
    if stream.duration is not None and stream.duration > 0 and stream.time_base is not None:
        return float(stream.duration * stream.time_base), True
    # Matroska writers note each track's length in a tag, as a time of day.
    tag = next((stream.metadata[key] for key in ("DURATION", "DURATION-eng") if key in stream.metadata), "")
    match = _TAG_DURATION.match(tag.strip("\0 "))
    if match is not None:
        seconds = _seconds(match.groups())
        if seconds > 0:
            return seconds, True
    if container.duration is not None and container.duration > 0:
        return container.duration / av.time_base, False
    return None, False


def _seconds(parts: Sequence[str]) -> float:
    hours, minutes, seconds = parts
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
