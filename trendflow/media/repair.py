"""Rewrites media through libav: a damaged source as a clean copy, and separate streams into one file."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from av.video.frame import PictureType

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.decode import VideoDecoder
from trendflow.media.probe import audio_stream, choose_audio, choose_video, only, open_media

# x264 gives the same bytes for the same number of threads, so that number must not depend on the machine.
_X264 = {"crf": "18", "preset": "slow", "threads": "4"}
_AAC_CHANNELS = 6


def reencode(source: Path, target: Path) -> None:
    """Decode what can be decoded and write it as H.264 (crf 18, slow) and AAC, with the original times.

    Raises `video_file_corrupted` when no frame can be decoded.
    """
    with av.open(str(target), "w", format="matroska", options={"fflags": "+bitexact"}) as output:
        frames = _encode_video(source, output)
        if frames == 0:
            raise TrendFlowError("video_file_corrupted", "Not a single frame can be decoded.")


def _encode_video(source: Path, output: OutputContainer) -> int:
    """Encode the video, then the audio; the muxer interleaves. Returns the number of frames."""
    with open_media(source) as container:
        stream = choose_video(container)
        audio = choose_audio(container)
        audio_index = audio.index if audio is not None else None
        context = stream.codec_context
        encoder = output.add_stream("libx264", rate=stream.average_rate or Fraction(25), options=dict(_X264))
        # 4:2:0 needs even sides; the odd line or column is the smallest loss that lets every player decode the copy.
        encoder.width, encoder.height = context.width & ~1, context.height & ~1
        encoder.pix_fmt = "yuv420p"
        time_base = Fraction(stream.time_base or Fraction(1, 1000))
        encoder.codec_context.time_base = time_base
        encoder.sample_aspect_ratio = stream.sample_aspect_ratio or Fraction(1)
        audio_encoder = None
        if audio is not None:
            audio_encoder = output.add_stream("aac", rate=audio.codec_context.sample_rate)
            layout = audio.codec_context.layout.name
            audio_encoder.layout = layout if audio.codec_context.channels <= _AAC_CHANNELS else "stereo"
        frames = 0
        last = None
        for frame in VideoDecoder(container, stream.index).frames():
            if frame.pts is None or (last is not None and frame.pts <= last):
                continue
            last = frame.pts
            frames += 1
            frame = frame.reformat(encoder.width, encoder.height, "yuv420p")
            frame.pict_type = PictureType.NONE
            for packet in encoder.encode(frame):
                output.mux(packet)
        for packet in encoder.encode(None):
            output.mux(packet)
    if audio_encoder is not None and audio_index is not None:
        with open_media(source) as container:
            _encode_audio(container, audio_index, audio_encoder, output)
    return frames


def _encode_audio(container: InputContainer, index: int, encoder: AudioStream, output: OutputContainer) -> None:
    stream = audio_stream(container, index)
    only(container, index)
    context = encoder.codec_context
    resampler = AudioResampler(format=context.format, layout=context.layout, rate=context.sample_rate)
    try:
        for packet in container.demux(stream):
            try:
                frames = stream.decode(packet)
            except av.FFmpegError:
                continue  # a hole; the next frame's time says how long it is
            for frame in frames:
                for part in resampler.resample(frame):
                    output.mux(encoder.encode(part))
    except av.FFmpegError:
        pass  # the file ends here
    output.mux(encoder.encode(None))


def remux(sources: Sequence[Path], target: Path) -> None:
    """Copy the best video stream of the first file and the best audio stream of the last into one Matroska file."""
    with (
        av.open(str(target), "w", format="matroska", options={"fflags": "+bitexact"}) as output,
        open_media(sources[0]) as first,
        open_media(sources[-1]) as last,
    ):
        video, audio = choose_video(first), choose_audio(last)
        copied_video = output.add_stream_from_template(video)
        copied_audio = output.add_stream_from_template(audio) if audio is not None else None
        _copy_packets(first, video, output, copied_video)
        if audio is not None and copied_audio is not None:
            _copy_packets(last, audio, output, copied_audio)


def _copy_packets(container: InputContainer, stream: Stream, output: OutputContainer, copied: Stream) -> None:
    only(container, stream.index)
    for packet in container.demux(stream):
        if packet.dts is not None:
            packet.stream = copied
            output.mux(packet)
