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
    """Writes frames into files of `chunk_size` frames, each frame while it is still in the processor's cache.

    `frames` is how many are expected; fewer may come. A file appears under its final name only when it is complete.
    """

    def __init__(self, folder: Path, height: int, width: int, chunk_size: int, frames: int) -> None:
        self.batches: list[Batch] = []
        self._folder = folder
        self._chunk_size = chunk_size
        self._frames = frames
        self._frame = np.empty((height, width, 3), dtype=np.uint8)
        self._pending = False
        self._written = 0
        self._file: _BatchFile | None = None

    def next_frame(self) -> np.ndarray:
        """Where to write the next frame: uint8 `[H, W, 3]`. Valid until the next call."""
        self._write_pending()
        self._pending = True
        return self._frame

    def finish(self) -> list[Batch]:
        self._write_pending()
        self._close_file()
        return self.batches

    def _write_pending(self) -> None:
        if not self._pending:
            return
        self._pending = False
        if self._file is None:
            expected = min(self._chunk_size, self._frames - self._written)
            self._file = _BatchFile(self._folder, len(self.batches), self._frame.shape, expected)
        self._file.write(self._frame)
        if self._file.frames == self._chunk_size:
            self._close_file()

    def _close_file(self) -> None:
        if self._file is None:
            return
        start, self._written = self._written, self._written + self._file.frames
        sha256 = self._file.close()
        self.batches.append(Batch(len(self.batches), self._file.name, start, self._written, sha256))
        self._file = None


class _BatchFile:
    """One `.npy` file that grows frame by frame, hashed on the way."""

    def __init__(self, folder: Path, index: int, frame_shape: tuple[int, ...], expected: int) -> None:
        self.name = f"batch_{index:05d}.npy"
        self.frames = 0
        self._path = folder / self.name
        self._partial = folder / f".{self.name}.part"
        self._shape = frame_shape
        self._expected = expected
        header = npy_header((expected, *frame_shape))
        self._hasher = hashlib.sha256(header)
        self._file = self._partial.open("w+b", buffering=0)
        self._write(memoryview(header))

    def write(self, frame: np.ndarray) -> None:
        payload = frame.data.cast("B")
        self._write(payload)
        self._hasher.update(payload)
        self.frames += 1

    def close(self) -> str:
        """Complete the file and give it its name; returns its sha256."""
        if self.frames != self._expected:
            # Frames were lost to damage, so the header promised too many. All headers have one length.
            self._file.seek(0)
            self._write(memoryview(npy_header((self.frames, *self._shape))))
            self._file.seek(0)
            self._hasher = hashlib.file_digest(self._file, "sha256")
        self._file.close()
        os.replace(self._partial, self._path)
        return self._hasher.hexdigest()

    def _write(self, payload: memoryview) -> None:
        while payload:
            payload = payload[self._file.write(payload) :]
