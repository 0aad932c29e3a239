"""RIFF/WAVE files: a streaming writer whose bytes depend on the samples only, and a memory-mapping reader."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from trendflow.contracts.errors import TrendFlowError

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_MAX_BYTES = 2**32 - 4096
# dwChannelMask bits by libav channel name.
_SPEAKERS = {
    name: 1 << bit for bit, name in enumerate(("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR"))
}


class WavWriter:
    """Writes int16 PCM or float32 samples of shape `[n, channels]` as they come.

    Nothing but the samples enters the file (audio libraries add time stamps to float files), so equal audio gives equal
    bytes.
    """

    def __init__(self, path: Path, sample_rate: int, channel_names: tuple[str, ...], dtype: type) -> None:
        self.channels = len(channel_names)
        self.frames = 0
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._rate = sample_rate
        self._mask = 0
        for name in channel_names:
            self._mask |= _SPEAKERS.get(name, 0)
        self._file = path.open("wb")
        self._file.write(self._header())

    def write(self, samples: np.ndarray) -> None:
        if (self.frames + len(samples)) * self.channels * self._dtype.itemsize > _MAX_BYTES:
            raise TrendFlowError("input_constraint_violated", "The audio is too long for a WAVE file.")
        self._file.write(np.ascontiguousarray(samples, dtype=self._dtype).data)
        self.frames += len(samples)

    def close(self) -> None:
        self._file.seek(0)
        self._file.write(self._header())
        self._file.close()

    def __enter__(self) -> WavWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()

    def _header(self) -> bytes:
        width = self._dtype.itemsize
        data = self.frames * self.channels * width
        block = self.channels * width
        kind = _FLOAT if self._dtype.kind == "f" else _PCM
        basic = struct.pack("<HIIHH", self.channels, self._rate, self._rate * block, block, 8 * width)
        if self.channels > 2:
            extension = struct.pack("<HHIH", 22, 8 * width, self._mask, kind) + _GUID_TAIL
            layout = struct.pack("<H", _EXTENSIBLE) + basic + extension
        else:
            layout = struct.pack("<H", kind) + basic + (struct.pack("<H", 0) if kind == _FLOAT else b"")
        fact = b"fact" + struct.pack("<II", 4, self.frames) if kind == _FLOAT else b""
        body = b"WAVE" + b"fmt " + struct.pack("<I", len(layout)) + layout + fact + b"data" + struct.pack("<I", data)
        return b"RIFF" + struct.pack("<I", len(body) + data) + body


@dataclass(frozen=True)
class WavData:
    """Samples `[n, channels]`, int16 or float32, mapped read-only from the file."""

    samples: np.ndarray
    sample_rate: int


def read_wav(path: Path) -> WavData:
    """Map a file written by `WavWriter`. Raises `artifact_validation_failed` when it is damaged or of another kind."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"RIFF" or len(file.read(4)) < 4 or file.read(4) != b"WAVE":
            raise _damaged()
        kind = channels = rate = 0
        while len(head := file.read(8)) == 8:
            name, length = head[:4], struct.unpack("<I", head[4:])[0]
            if name == b"fmt " and 16 <= length <= 64:
                layout = file.read(length)
                if len(layout) < length:
                    raise _damaged()
                kind, channels, rate = struct.unpack("<HHI", layout[:8])
                if kind == _EXTENSIBLE and length >= 26:
                    kind = struct.unpack("<H", layout[24:26])[0]
            elif name == b"data":
                dtype = {_PCM: "<i2", _FLOAT: "<f4"}.get(kind)
                if dtype is None or channels < 1 or file.tell() + length > size:
                    raise _damaged()
                frames = length // (channels * np.dtype(dtype).itemsize)
                if frames == 0:
                    return WavData(np.empty((0, channels), dtype=dtype), rate)
                mapped = np.memmap(path, dtype=dtype, mode="r", offset=file.tell(), shape=(frames, channels))
                return WavData(mapped, rate)
            else:
                file.seek(length + length % 2, 1)
    raise _damaged()


def _damaged() -> TrendFlowError:
    return TrendFlowError("artifact_validation_failed", "An audio file of the frames folder is damaged.")
