"""The one pass over the video: every frame measured, the wanted ones stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.colour import ColourInfo, Scaler, colour_of, settle_tags
from trendflow.media.frames_writer import Batch, BatchWriter
from trendflow.media.geometry import Geometry, Orientation, orientation_from_matrix
from trendflow.media.probe import only, open_media, video_stream
from trendflow.media.raster import RASTER_HEIGHT, RASTER_WIDTH
from trendflow.media.selection import FrameSelector
from trendflow.media.signals import DenseSignals
from trendflow.media.stage import Stage

Progress = Callable[[int, int], None]
_PROGRESS_EVERY = 64
_FULL_HD_LINES = 1080


@dataclass(frozen=True)
class Appearance:
    """What only a decoded frame can tell: orientation, colour and the geometry that follows."""

    orientation: Orientation
    colour: ColourInfo
    geometry: Geometry


@dataclass(frozen=True)
class DecodedVideo:
    """Result of the pass. Rows of `signals`, `ticks` and `corrupt` are decoded frames in display order.

    `source_of_slot[k]` is the decoded frame that serves wanted frame k, None if it could not be served.
    """

    appearance: Appearance
    ticks: list[int | None]
    corrupt: np.ndarray
    last_duration: int | None
    packets: int
    failed_packets: int
    complete: bool
    signals: dict[str, np.ndarray]
    source_of_slot: list[int | None]
    batches: list[Batch]


class VideoDecoder:
    """Frames of one stream in display order, decoded with libav's own threads; damage is counted, not raised."""

    def __init__(self, container: InputContainer, stream_index: int) -> None:
        self._container = container
        self._stream = video_stream(container, stream_index)
        self._stream.thread_type = "AUTO"
        only(container, stream_index)
        self.packets = 0
        self.failed_packets = 0
        self.complete = True

    def frames(self) -> Iterator[VideoFrame]:
        try:
            for packet in self._container.demux(self._stream):
                self.packets += packet.size > 0
                try:
                    yield from packet.decode()
                except MemoryError:
                    raise  # not the packet's fault
                except av.FFmpegError:
                    self.failed_packets += 1
        except av.FFmpegError:
            self.complete = False  # the demuxer gave up; the frames so far count
            yield from self._drain()

    def _drain(self) -> Iterator[VideoFrame]:
        try:
            yield from self._stream.decode(None)
        except av.FFmpegError:
            self.failed_packets += 1


def appearance_of(frame: VideoFrame, geometry: Callable[[VideoFrame, Orientation], Geometry]) -> Appearance:
    side_data: Any = frame.side_data  # PyAV types this mapping by name but looks up by type
    matrix = side_data.get(SideDataType.DISPLAYMATRIX)
    orientation = orientation_from_matrix(np.frombuffer(bytes(matrix), np.int32) if matrix is not None else None)
    return Appearance(orientation, colour_of(frame), geometry(frame, orientation))


def decode_video(
    path: Path,
    stream_index: int,
    expected: Sequence[int | None],
    wanted: Sequence[int],
    geometry: Callable[[VideoFrame, Orientation], Geometry],
    folder: Path,
    *,
    chunk_size: int,
    on_thumbnail: Callable[[np.ndarray], None] | None,
    progress: Progress,
) -> DecodedVideo:
    """Decode a stream once.

    `expected` are the packet times in display order, `wanted` the positions among them to store below `folder`;
    `geometry` turns the first frame and its orientation into the analysis size. Raises `video_file_corrupted` when not
    a single frame can be decoded.
    """
    ticks: list[int | None] = []
    corrupt: list[bool] = []
    last_duration: int | None = None
    selector: FrameSelector[VideoFrame] = FrameSelector(expected, wanted)
    sinks: _Sinks | None = None
    with open_media(path) as container:
        decoder = VideoDecoder(container, stream_index)
        try:
            for number, frame in enumerate(decoder.frames()):
                if sinks is None:
                    sinks = _Sinks(appearance_of(frame, geometry), folder, len(wanted), chunk_size, on_thumbnail)
                ticks.append(frame.pts)
                corrupt.append(frame.is_corrupt)
                last_duration = frame.duration
                settle_tags(frame, sinks.appearance.colour)  # from here on two threads read the frame
                sinks.measure(frame)
                for chosen in selector.push(number, frame.pts, frame):
                    sinks.store(chosen.slot, chosen.number, chosen.frame)
                if number % _PROGRESS_EVERY == 0:
                    progress(number, len(expected))
            if sinks is None:
                raise TrendFlowError("video_file_corrupted", "Not a single frame can be decoded.", repairable=True)
            for chosen in selector.finish():
                sinks.store(chosen.slot, chosen.number, chosen.frame)
        finally:
            if sinks is not None:
                sinks.close()
    progress(len(ticks), len(ticks))
    return DecodedVideo(
        appearance=sinks.appearance,
        ticks=ticks,
        corrupt=np.array(corrupt, dtype=bool),
        last_duration=last_duration,
        packets=decoder.packets,
        failed_packets=decoder.failed_packets,
        complete=decoder.complete,
        signals=sinks.dense.finish(),
        source_of_slot=sinks.source_of_slot,
        batches=sinks.writer.finish(),
    )


class _Sinks:
    """The two consumers of decoded frames, each in its own thread."""

    def __init__(
        self,
        appearance: Appearance,
        folder: Path,
        slots: int,
        chunk_size: int,
        on_thumbnail: Callable[[np.ndarray], None] | None,
    ) -> None:
        self.appearance = appearance
        self.source_of_slot: list[int | None] = [None] * slots
        self.dense = DenseSignals(on_thumbnail)
        size = appearance.geometry
        self.writer = BatchWriter(folder, size.analysis_height, size.analysis_width, chunk_size, slots)
        orientation, colour = appearance.orientation, appearance.colour
        raster = Scaler(RASTER_WIDTH, RASTER_HEIGHT, orientation, colour, Interpolation.AREA)
        # At moderate ratios a box filter is as close to the source as Lanczos and costs half.
        large = min(size.display_width, size.display_height) > _FULL_HD_LINES
        kernel = Interpolation.LANCZOS if large else Interpolation.AREA
        picture = Scaler(size.analysis_width, size.analysis_height, orientation, colour, kernel)
        self._measure = Stage[VideoFrame]("dense-signals", lambda frame: self.dense.add(raster.planes(frame)))
        self._store = Stage[VideoFrame](
            "union-frames", lambda frame: picture.picture_into(frame, self.writer.next_frame())
        )

    def measure(self, frame: VideoFrame) -> None:
        self._measure.put(frame)

    def store(self, slot: int, number: int, frame: VideoFrame) -> None:
        self.source_of_slot[slot] = number
        self._store.put(frame)

    def close(self) -> None:
        try:
            self._measure.close()
        finally:
            self._store.close()
