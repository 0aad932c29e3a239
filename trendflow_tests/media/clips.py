"""Synthetic media with content that a test can read back, and small readers of results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import PictureType, VideoFrame

from trendflow.contracts.identity import RunIdentity
from trendflow.media.frames_dir import FramesDir
from trendflow.media.limits import MediaLimits
from trendflow.media.sampling import ComponentSampling
from trendflow.media.segmenter import Segmented, SegmentRequest

IDENTITY = RunIdentity("upload", "video-1", "run-1", "0" * 64, "sampling_v1", "0.1.0")
CREATED_AT = "2026-01-02T03:04:05.678Z"
COMPONENTS = (
    ComponentSampling("core_clip", 200, 400, 800, "primary"),
    ComponentSampling("core_face_landmarks", 200, 400, 800, "primary"),
    ComponentSampling("cut_detection", 400, 800, 1500),
)
FAMILIES = {"primary": ["loudness_extractor"], "tempo": ["tempo_extractor"]}
NO_MINIMUM = MediaLimits(min_duration_sec=0.0)


def request_for(source: Path, scratch: Path, **changes: Any) -> SegmentRequest:
    fields: dict[str, Any] = {
        "identity": IDENTITY,
        "source": source,
        "source_sha256": "1" * 64,
        "components": COMPONENTS,
        "families": FAMILIES,
        "scratch": scratch,
        "created_at": CREATED_AT,
    }
    return SegmentRequest(**{**fields, **changes})


@dataclass
class Clip:
    """A synthetic video: pictures `[H, W, 3]` at `ticks` of `time_base`, optionally with audio."""

    pictures: Iterable[np.ndarray]
    ticks: Sequence[int]
    time_base: Fraction = Fraction(1, 1000)
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    muxer_options: dict[str, str] = field(default_factory=dict)
    rotation_ccw: int = 0
    pixel_aspect: Fraction | None = None
    options: dict[str, str] = field(default_factory=lambda: {"preset": "ultrafast", "crf": "12", "g": "25"})
    audio: np.ndarray | None = None  # float32 [n, channels]
    audio_rate: int = 48000
    audio_start_sec: float = 0.0
    audio_codec: str = "aac"

    def write(self, path: Path) -> Path:
        pictures = iter(self.pictures)
        first = next(pictures)
        with av.open(str(path), "w", options=dict(self.muxer_options)) as output:
            stream = output.add_stream(self.codec, rate=25, options=dict(self.options))
            stream.height, stream.width = first.shape[:2]
            stream.pix_fmt = self.pixel_format
            stream.codec_context.time_base = self.time_base
            if self.pixel_aspect is not None:
                stream.codec_context.sample_aspect_ratio = self.pixel_aspect
            if self.rotation_ccw:
                stream.set_display_rotation(self.rotation_ccw)
            audio_stream = None
            if self.audio is not None:
                layout = {1: "mono", 2: "stereo", 6: "5.1"}[self.audio.shape[1]]
                audio_stream = output.add_stream(self.audio_codec, rate=self.audio_rate, layout=layout)
            for tick, picture in zip(self.ticks, self._all(first, pictures), strict=True):
                frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
                frame = frame.reformat(format=self.pixel_format)
                frame.pts, frame.time_base, frame.pict_type = tick, self.time_base, PictureType.NONE
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
            if audio_stream is not None:
                self._write_audio(output, audio_stream)
        return path

    @staticmethod
    def _all(first: np.ndarray, rest: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
        yield first
        yield from rest

    def _write_audio(self, output: Any, stream: Any) -> None:
        assert self.audio is not None
        start = round(self.audio_start_sec * self.audio_rate)
        for begin in range(0, len(self.audio), 1024):
            samples = np.ascontiguousarray(self.audio[begin : begin + 1024].astype(np.float32).reshape(1, -1))
            frame = AudioFrame.from_ndarray(samples, "flt", stream.layout.name)
            frame.sample_rate = self.audio_rate
            frame.pts, frame.time_base = start + begin, Fraction(1, self.audio_rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


_BITS = 10


def numbered_picture(number: int, height: int = 96, width: int = 160) -> np.ndarray:
    """A picture that shows `number` as ten black or white columns over the whole height, on a grey frame."""
    picture = np.full((height, width, 3), 128, dtype=np.uint8)
    step = width // _BITS
    for bit in range(_BITS):
        picture[8:-8, bit * step + 2 : (bit + 1) * step - 2] = 235 if number >> bit & 1 else 20
    return picture


def read_number(picture: np.ndarray) -> int:
    """The number shown by `numbered_picture`, at any size."""
    height, width = picture.shape[:2]
    middle = picture[height // 3 : 2 * height // 3].mean(axis=(0, 2))
    centres = ((np.arange(_BITS) + 0.5) * width / _BITS).astype(int)
    return int(sum(1 << bit for bit, column in enumerate(centres) if middle[column] > 128))


def numbered_clip(count: int, ticks: Sequence[int] | None = None, **changes: Any) -> Clip:
    """`count` numbered pictures, 40 ms apart unless `ticks` (milliseconds) say otherwise."""
    return Clip((numbered_picture(k) for k in range(count)), ticks or [40 * k for k in range(count)], **changes)


def colour_pattern(height: int, width: int, phase: float = 0.0) -> np.ndarray:
    """A smooth colourful picture without symmetry, so that every wrong turn or stretch of it shows."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 128 + 100 * np.sin(2 * np.pi * x / width + phase)
    green = 40 + 170 * y / height
    blue = 128 + 90 * np.cos(2 * np.pi * (x / width + 2 * y / height))
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 255).astype(np.uint8)


def stored_frames(segmented: Segmented) -> np.ndarray:
    """All union frames, uint8 `[U, H, W, 3]`."""
    frames = FramesDir.open(segmented.frames_dir)
    return frames.read(np.arange(len(frames)))


def features(segmented: Segmented) -> dict[str, float]:
    arrays = segmented.artifact.arrays
    return dict(zip(arrays["feature_names"].tolist(), arrays["feature_values"].tolist(), strict=True))
