"""Demux-only pass over the video packets: the display times that sampling is planned on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from trendflow.media.probe import only, open_media, video_stream

_VP8_SHOW_FRAME = 0x10


@dataclass(frozen=True)
class PacketScan:
    """Display times of the packets that will give a frame, in display order (None where missing)."""

    ticks: list[int | None]
    last_duration: int | None
    complete: bool
    """False when the demuxer stopped with an error instead of the end of the file."""


def scan_packets(path: Path, stream_index: int) -> PacketScan:
    """Collect the timestamps of one video stream without decoding it."""
    ticks: list[int | None] = []
    durations: list[int | None] = []
    complete = True
    with open_media(path) as container:
        stream = video_stream(container, stream_index)
        only(container, stream_index)
        hidden_frames = stream.codec_context.codec.canonical_name == "vp8"
        try:
            for packet in container.demux(stream):
                if packet.size == 0 or packet.is_discard:
                    continue
                # VP8 carries reference frames that are never shown as packets of their own.
                if hidden_frames and not memoryview(packet)[0] & _VP8_SHOW_FRAME:
                    continue
                ticks.append(packet.pts)
                durations.append(packet.duration)
        except av.FFmpegError:
            complete = False
    order = _display_order(ticks)
    return PacketScan(
        ticks=[ticks[i] for i in order],
        last_duration=durations[order[-1]] if len(order) else None,
        complete=complete,
    )


def _display_order(ticks: list[int | None]) -> np.ndarray:
    """Stable order by time; a packet without one stays behind its predecessor in decoding order."""
    keys = np.empty(len(ticks), dtype=np.int64)
    last = np.iinfo(np.int64).min
    for i, tick in enumerate(ticks):
        last = last if tick is None else tick
        keys[i] = last
    return np.argsort(keys, kind="stable")
