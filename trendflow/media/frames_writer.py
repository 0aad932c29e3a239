"""Writes the union frames as `.npy` batches."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

DEFAULT_CHUNK_SIZE = 64


@dataclass(frozen=True)
class Batch:
    """One file of frames: union positions `start_frame … end_frame` (exclusive). `path` is relative to `video/`."""

    batch_index: int
    path: str
    start_frame: int
    end_frame: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def npy_header(shape: tuple[int, ...]) -> bytes:
    """Header of a C-ordered uint8 `.npy` file, format 1.0."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def digest_of_batches(batches: list[Batch]) -> str:
    """`frames_digest`: sha256 over the digests of the batch files in order."""
    return hashlib.sha256("".join(batch.sha256 for batch in batches).encode()).hexdigest()


class BatchWriter:
    """Collects frames in one buffer of `chunk_size` and writes each full buffer as a file.

    A file appears under its final name only when it is complete.
    """

    def __init__(self, folder: Path, height: int, width: int, chunk_size: int) -> None:
        self.batches: list[Batch] = []
        self._folder = folder
        self._buffer = np.empty((chunk_size, height, width, 3), dtype=np.uint8)
        self._filled = 0
        self._written = 0

    def next_frame(self) -> np.ndarray:
        """Where to write the next frame: uint8 `[H, W, 3]`. Valid until the next call."""
        if self._filled == len(self._buffer):
            self._flush()
        self._filled += 1
        return self._buffer[self._filled - 1]

    def finish(self) -> list[Batch]:
        if self._filled:
            self._flush()
        return self.batches

    def _flush(self) -> None:
        frames = self._buffer[: self._filled]
        header = npy_header(frames.shape)
        name = f"batch_{len(self.batches):05d}.npy"
        partial = self._folder / f".{name}.part"
        with partial.open("wb", buffering=0) as file:
            file.write(header)
            payload = frames.data.cast("B")
            while payload:
                payload = payload[file.write(payload) :]
        os.replace(partial, self._folder / name)
        hasher = hashlib.sha256(header)
        hasher.update(frames.data)
        self.batches.append(
            Batch(len(self.batches), name, self._written, self._written + self._filled, hasher.hexdigest())
        )
        self._written += self._filled
        self._filled = 0
