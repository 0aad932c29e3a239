"""From decoded frames to small upright RGB pictures: colour interpretation and scaling in one libswscale pass.

Method: pictures are full-range RGB. Matrix and range are what the stream states; without that they are BT.709 from
720 lines (the shorter side) on, else BT.601, and the limited range. Stored frames are scaled with a Lanczos kernel,
the 96×54 raster of the dense signals by averaging over areas, its aspect ignored; both are rounded to 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from trendflow.media.geometry import Orientation
from trendflow.media.tonemap import Transfer, to_sdr

# Code points of ITU-T H.273, the numbering libav uses.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020",
              11: "smpte431", 12: "smpte432"}  # fmt: skip
_TRANSFERS = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 11: "iec61966-2-4",
              13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084", 18: "arib-std-b67"}  # fmt: skip
# What libav calls a matrix on a frame; libswscale has numbers of its own for it.
_FRAME_MATRICES = {
    Colorspace.ITU709: 1,
    Colorspace.FCC: 4,
    Colorspace.ITU601: 6,
    Colorspace.SMPTE240M: 7,
    Colorspace.BT2020: 9,
}
_UNSPECIFIED = 2
_BT2020 = 9
_PQ, _HLG = 16, 18
_HD_LINES = 720


@dataclass(frozen=True)
class ColourInfo:
    """How the samples of a stream are to be read."""

    matrix: Colorspace
    full_range: bool
    transfer: Transfer
    wide_gamut: bool
    primaries_name: str
    transfer_name: str
    bit_depth: int

    @property
    def is_hdr(self) -> bool:
        return self.transfer is not Transfer.SDR

    @property
    def needs_tone_map(self) -> bool:
        """True when libswscale's matrix and range conversion is not enough."""
        return self.is_hdr or self.wide_gamut


def colour_of(frame: VideoFrame) -> ColourInfo:
    """Colour interpretation of a decoded frame.

    The frame is asked, not the container: a stream's own headers are what its pictures were encoded with. An
    unspecified matrix is BT.709 from 720 lines on, else BT.601; lines are the shorter side, so that a rotated copy is
    read like the upright one. An unspecified range is the limited one.
    """
    lines = min(frame.width, frame.height)
    fallback = Colorspace.ITU709 if lines >= _HD_LINES else Colorspace.ITU601
    transfer = {_PQ: Transfer.PQ, _HLG: Transfer.HLG}.get(int(frame.color_trc), Transfer.SDR)
    return ColourInfo(
        matrix=_MATRICES.get(int(frame.colorspace), fallback),
        full_range=int(frame.color_range) == ColorRange.JPEG or frame.format.name.startswith("yuvj"),
        transfer=transfer,
        wide_gamut=int(frame.color_primaries) == _BT2020,
        primaries_name=_PRIMARIES.get(int(frame.color_primaries), "unspecified"),
        transfer_name=_TRANSFERS.get(int(frame.color_trc), "unspecified"),
        bit_depth=max(component.bits for component in frame.format.components),
    )


def settle_tags(frame: VideoFrame, colour: ColourInfo) -> None:
    """Write the colour interpretation that every `Scaler` will use onto the frame, so that threads may share it.

    PyAV hands source matrix and range to libswscale by setting them on the frame and putting the old values back
    afterwards, without a lock. Two threads that scale one frame would read each other's half-restored values, and
    colours would depend on timing. With these values on the frame beforehand, setting and restoring change nothing.
    """
    frame.colorspace = _FRAME_MATRICES[colour.matrix]
    frame.color_range = _range_of(colour)
    frame.color_trc = _UNSPECIFIED
    frame.color_primaries = _UNSPECIFIED


class Scaler:
    """Scales frames to one size, as RGB in upright orientation. Not thread-safe: one per thread.

    Frames that several threads scale at a time need `settle_tags` first.

    The way over planar RGB is deliberate: libswscale's direct path to packed RGB rounds down (up to 1.8 of 255 too dark
    on average), while planar RGB is exact to rounding and as fast.
    """

    def __init__(
        self, width: int, height: int, orientation: Orientation, colour: ColourInfo, kernel: Interpolation
    ) -> None:
        self._size = (height, width) if orientation.swaps_sides else (width, height)
        self._orientation = orientation
        self._colour = colour
        self._flags = kernel | Interpolation.ACCURATE_RND
        self._scale = VideoReformatter()
        self._pack = VideoReformatter()

    def planes(self, frame: VideoFrame) -> np.ndarray:
        """uint8 `[3, H, W]` in the order R, G, B."""
        wide = self._colour.needs_tone_map
        scaled = self._planar(frame, "gbrp16le" if wide else "gbrp")
        green, blue, red = (_plane(scaled, k, np.uint16 if wide else np.uint8) for k in range(3))
        rgb = np.stack([red, green, blue])
        if wide:
            rgb = to_sdr(rgb, self._colour.transfer, self._colour.wide_gamut)
        # The orientation acts on [H, W, …]; three stacked planes go along as the last axis.
        return np.ascontiguousarray(self._orientation.apply(rgb.transpose(1, 2, 0)).transpose(2, 0, 1))

    def picture_into(self, frame: VideoFrame, target: np.ndarray) -> None:
        """Write the picture into `target`, uint8 `[H, W, 3]`."""
        if self._colour.needs_tone_map:
            target[...] = self.planes(frame).transpose(1, 2, 0)
            return
        packed = self._pack.reformat(self._planar(frame, "gbrp"), format="rgb24", threads=1)
        rows = _plane(packed, 0, np.uint8, channels=3)
        target[...] = self._orientation.apply(rows.reshape(rows.shape[0], -1, 3))

    def _planar(self, frame: VideoFrame, pixel_format: str) -> VideoFrame:
        width, height = self._size
        return self._scale.reformat(
            frame,
            width,
            height,
            pixel_format,
            src_colorspace=self._colour.matrix,
            src_color_range=_range_of(self._colour),
            dst_color_range=ColorRange.JPEG,
            interpolation=self._flags,
            threads=1,
        )


def _range_of(colour: ColourInfo) -> ColorRange:
    return ColorRange.JPEG if colour.full_range else ColorRange.MPEG


def _plane(frame: VideoFrame, index: int, dtype: type, channels: int = 1) -> np.ndarray:
    """View of one plane without the padding at the end of its rows: `[H, W · channels]`."""
    plane: Any = frame.planes[index]
    rows: np.ndarray = np.frombuffer(memoryview(plane), dtype=dtype).reshape(frame.height, -1)
    return rows[:, : frame.width * channels]
