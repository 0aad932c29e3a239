"""Extracts the audio of a source as two WAVE files whose sample 0 is video time 0."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.filter import Graph

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.documents import FULL_NAME, MONO_NAME
from trendflow.media.probe import audio_stream, only, open_media
from trendflow.media.wav import WavWriter

FULL_RATE = 48_000
MAX_FULL_CHANNELS = 6
# A jump of the timestamps beyond this is a hole or an overlap; below it, it is the rounding of coarse time bases.
_JUMP_SEC = 0.05
# Polyphase filter of libswresample: pass band to 0.95 of the lower Nyquist frequency, more than 90 dB beyond 1.09.
_RESAMPLER = "filter_size=64:cutoff=0.98"
_BATCH_SAMPLES = 16384


@dataclass(frozen=True)
class ExtractedAudio:
    """What was written. Times in seconds on the video's time axis.

    `offset_sec` is where the stream really begins (negative: its beginning was cut); `end_sec` is the length of both
    files.
    """

    sample_rate: int
    total_samples: int
    channels: int
    channel_layout: str
    source_channels: int
    source_sample_rate: int
    offset_sec: float
    end_sec: float
    failed_packets: int
    packets: int
    digest: str


def extract_audio(
    path: Path, stream_index: int, video_start: Fraction, folder: Path, mono_rate: int, max_end_sec: float
) -> ExtractedAudio:
    """Decode one audio stream into `folder`.

    `audio.wav`: int16 mono at `mono_rate` (all channels mixed so that it cannot clip). `audio_full.wav`: float32 at
    48 kHz in the original layout; more than six channels are mixed to stereo. Audio before `video_start` (seconds on
    the container's clock) is cut, a late start and holes are filled with zeros. Raises `video_file_corrupted` when
    nothing can be decoded or the audio goes on beyond `max_end_sec` on the video's time axis.
    """
    with open_media(path) as container:
        only(container, stream_index)
        source = _FrameSource(container, stream_index)
        writer: _Files | None = None
        position = 0
        offset_sec = 0.0
        axis = _SampleAxis(video_start)
        for frame in source.frames():
            rate = frame.sample_rate
            if writer is None:
                writer = _Files(folder, frame, mono_rate)
                offset_sec = axis.seconds(frame)
            if rate != writer.source_rate or frame.layout.nb_channels != writer.source_channels:
                raise TrendFlowError("video_file_corrupted", "The audio changes its format in mid-stream.")
            wanted = position if frame.pts is None else axis.sample(frame)
            if abs(wanted - position) <= _JUMP_SEC * rate and position:
                wanted = position
            if wanted > max_end_sec * rate:
                raise TrendFlowError("video_file_corrupted", "The audio goes on long after the video has ended.")
            if wanted > position:
                writer.silence(wanted - position)
                position = wanted
            skipped = position - wanted
            if skipped < frame.samples:
                writer.write(frame, skipped)
                position += frame.samples - skipped
    if writer is None or position == 0:
        raise TrendFlowError(
            "video_file_corrupted", "The audio stream cannot be decoded.", stream="audio", packets=source.packets
        )
    total = writer.close()
    return ExtractedAudio(
        sample_rate=mono_rate,
        total_samples=total,
        channels=writer.channels,
        channel_layout=writer.layout,
        source_channels=writer.source_channels,
        source_sample_rate=writer.source_rate,
        offset_sec=offset_sec,
        end_sec=position / writer.source_rate,
        failed_packets=source.failed,
        packets=source.packets,
        digest=_digest(folder),
    )


class _FrameSource:
    """Decoded frames of a stream; damaged packets are counted and skipped."""

    def __init__(self, container: av.container.InputContainer, stream_index: int) -> None:
        self._container = container
        self._stream = audio_stream(container, stream_index)
        self.packets = 0
        self.failed = 0

    def frames(self) -> Iterator[AudioFrame]:
        try:
            for packet in self._container.demux(self._stream):
                self.packets += packet.size > 0
                try:
                    frames = self._stream.decode(packet)
                except av.FFmpegError:
                    self.failed += 1
                    continue
                yield from (frame for frame in frames if frame.samples > 0)
        except av.FFmpegError:
            # The file ends in the middle of something; what was read before it counts.
            self.failed += 1


class _Files:
    """Feeds one stream of frames to both resamplers and writes what comes out."""

    def __init__(self, folder: Path, first: AudioFrame, mono_rate: int) -> None:
        self.source_rate = first.sample_rate
        self.source_channels = first.layout.nb_channels
        self._format = first.format.name
        self._layout = first.layout.name
        self._fed = 0
        keep = self.source_channels <= MAX_FULL_CHANNELS
        self.layout = self._layout if keep else "stereo"
        names = tuple(channel.name for channel in AudioLayout(self.layout).channels)
        self.channels = len(names)
        # `rematrix_maxval` makes the mix an average instead of a sum that could clip.
        mono = f"{mono_rate}:osf=s16:ochl=mono:rematrix_maxval=1.0:{_RESAMPLER}"
        full = f"{FULL_RATE}:osf=flt:ochl={self.layout}:rematrix_maxval=1.0:{_RESAMPLER}"
        self._outputs = (
            _Output(self, mono, WavWriter(folder / MONO_NAME, mono_rate, ("FC",), np.int16)),
            _Output(self, full, WavWriter(folder / FULL_NAME, FULL_RATE, names, np.float32)),
        )

    @property
    def source_arguments(self) -> str:
        return (
            f"time_base=1/{self.source_rate}:sample_rate={self.source_rate}:"
            f"sample_fmt={self._format}:channel_layout={self._layout}"
        )

    def silence(self, samples: int) -> None:
        while samples > 0:
            part = min(samples, _BATCH_SAMPLES)
            frame = AudioFrame(self._format, self._layout, part)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            self._feed(frame)
            samples -= part

    def write(self, frame: AudioFrame, skip: int) -> None:
        """Append a frame without its first `skip` samples."""
        if skip:
            step = 1 if frame.format.is_planar else self.source_channels
            samples: Any = np.ascontiguousarray(frame.to_ndarray()[:, skip * step :])
            frame = AudioFrame.from_ndarray(samples, self._format, self._layout)
        self._feed(frame)

    def _feed(self, frame: AudioFrame) -> None:
        frame.sample_rate = self.source_rate
        frame.time_base = Fraction(1, self.source_rate)
        frame.pts = self._fed
        self._fed += frame.samples
        for output in self._outputs:
            output.push(frame)

    def close(self) -> int:
        """Flush and close both files; the number of samples of `audio.wav`."""
        for output in self._outputs:
            output.close()
        return self._outputs[0].writer.frames


class _Output:
    def __init__(self, files: _Files, resample: str, writer: WavWriter) -> None:
        self.writer = writer
        self._graph = Graph()
        self._source = self._graph.add("abuffer", files.source_arguments)
        converter = self._graph.add("aresample", resample)
        collector = self._graph.add("asetnsamples", f"nb_out_samples={_BATCH_SAMPLES}:pad=0")
        self._sink = self._graph.add("abuffersink")
        self._source.link_to(converter)
        converter.link_to(collector)
        collector.link_to(self._sink)
        self._graph.configure()
        self._unread = 0

    def push(self, frame: AudioFrame) -> None:
        self._source.push(frame)
        self._unread += frame.samples
        # Codec frames are small; asking the graph after each of them would cost more than resampling.
        if self._unread >= _BATCH_SAMPLES:
            self._unread = 0
            self._pull()

    def close(self) -> None:
        self._source.push(None)
        self._pull()
        self.writer.close()

    def _pull(self) -> None:
        while True:
            try:
                out = self._sink.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            assert isinstance(out, AudioFrame)
            self.writer.write(out.to_ndarray().reshape(-1, self.writer.channels))


class _SampleAxis:
    """Where a frame begins, relative to the start of the video."""

    def __init__(self, start: Fraction) -> None:
        self._start = start
        self._scale = (Fraction(0), 0)
        self._factors = (1, 0, 1)

    def seconds(self, frame: AudioFrame) -> float:
        return float((frame.pts or 0) * _time_base(frame) - self._start)

    def sample(self, frame: AudioFrame) -> int:
        """Nearest sample number, negative before the start. Exact, in integers: `⌊(pts·a − b) / c + ½⌋`."""
        scale = (_time_base(frame), frame.sample_rate)
        if scale != self._scale:
            step, start = scale[0] * frame.sample_rate, self._start * frame.sample_rate
            self._factors = (
                step.numerator * start.denominator,
                start.numerator * step.denominator,
                step.denominator * start.denominator,
            )
            self._scale = scale
        a, b, c = self._factors
        return (2 * ((frame.pts or 0) * a - b) + c) // (2 * c)


def _time_base(frame: AudioFrame) -> Fraction:
    return frame.time_base or Fraction(1, frame.sample_rate)


def _digest(folder: Path) -> str:
    """sha256 of `audio.wav` followed by `audio_full.wav`."""
    hasher = hashlib.sha256()
    for name in (MONO_NAME, FULL_NAME):
        with (folder / name).open("rb") as file:
            while block := file.read(1 << 20):
                hasher.update(block)
    return hasher.hexdigest()


def audio_is_damaged(audio: ExtractedAudio, max_failed_ratio: float) -> bool:
    return audio.failed_packets > math.floor(max_failed_ratio * max(audio.packets, 1)) + 1
