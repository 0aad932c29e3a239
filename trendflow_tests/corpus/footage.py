"""Pictures and sound of real files as arrays, so that clips can be cut out of them and edited."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from trendflow_tests.media.clips import Clip

_AUDIO_RATE = 48000


@dataclass(frozen=True)
class Footage:
    """`pictures` uint8 `[n, H, W, 3]` at `times_s`; `audio` float32 `[m, channels]` at 48 kHz from the same zero."""

    pictures: np.ndarray
    times_s: np.ndarray
    audio: np.ndarray | None = None

    def between(self, start_s: float, stop_s: float) -> np.ndarray:
        """The pictures shown in a span of time."""
        return self.pictures[(self.times_s >= start_s) & (self.times_s < stop_s)]

    def write(self, path: Path) -> Path:
        ticks = np.round((self.times_s - self.times_s[0]) * 1000).astype(int).tolist()
        options = {"preset": "ultrafast", "crf": "16"}
        return Clip(self.pictures, ticks, options=options, audio=self.audio, audio_rate=_AUDIO_RATE).write(path)


def at_rate(pictures: np.ndarray, fps: float, audio: np.ndarray | None = None) -> Footage:
    return Footage(pictures, np.arange(len(pictures)) / fps, audio)


def footage(
    path: Path,
    start_s: float = 0.0,
    stop_s: float = np.inf,
    *,
    height: int | None = None,
    region: tuple[int, int, int, int] | None = None,
) -> Footage:
    """What the largest video stream shows from `start_s` to `stop_s`, with the first audio stream if there is one.

    `region` (left, top, width, height) is all that is kept of a picture; `height` scales what is kept.
    """
    pictures, times = [], []
    with av.open(str(path)) as container:
        stream = max(container.streams.video, key=lambda video: video.width * video.height)
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            if frame.time >= stop_s:
                break
            if frame.time >= start_s:
                # At once: a second of full pictures takes 80 MB.
                pictures.append(_reduced(frame.to_ndarray(format="rgb24"), height, region))
                times.append(frame.time)
    return Footage(np.stack(pictures), np.array(times) - start_s, _sound(path, start_s, stop_s))


def _reduced(picture: np.ndarray, height: int | None, region: tuple[int, int, int, int] | None) -> np.ndarray:
    if region is not None:
        picture = cropped(picture[None], *region)[0].copy()
    if height is not None:
        width = round(picture.shape[1] * height / picture.shape[0] / 2) * 2
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return picture


def _sound(path: Path, start_s: float, stop_s: float) -> np.ndarray | None:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="flt", layout=stream.layout.name, rate=_AUDIO_RATE)
        packed = [part.to_ndarray() for frame in container.decode(stream) for part in resampler.resample(frame)]
        samples = np.concatenate(packed, axis=1).reshape(-1, stream.layout.nb_channels)
    stop = len(samples) if np.isinf(stop_s) else round(stop_s * _AUDIO_RATE)
    return samples[round(start_s * _AUDIO_RATE) : stop]


def resized(pictures: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.stack([cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) for picture in pictures])


def cropped(pictures: np.ndarray, left: int, top: int, width: int, height: int) -> np.ndarray:
    return pictures[:, top : top + height, left : left + width]


def repeated(source: Path, target: Path, times: int) -> Path:
    """The video stream of `source` played several times in a row; its packets are copied, not encoded again."""
    with av.open(str(target), "w") as writer:
        copy = None
        offset = 0
        for _ in range(times):
            with av.open(str(source)) as reader:
                stream = reader.streams.video[0]
                copy = copy or writer.add_stream_from_template(stream)
                packets = [packet for packet in reader.demux(stream) if packet.dts is not None]
                length = max(packet.pts + packet.duration for packet in packets) - packets[0].pts
                for packet in packets:
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, copy
                    writer.mux(packet)
                offset += length
    return target
