"""Random access to the bytes of one object, wherever it lives."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BufferedReader, FileIO
from pathlib import Path
from types import TracebackType
from typing import Protocol

from trendflow.contracts.errors import TrendFlowError


class ByteSource(Protocol):
    """`size` bytes readable by range. Reading past the end raises `artifact_validation_failed`."""

    size: int

    def read(self, start: int, length: int) -> bytes: ...

    def readinto(self, start: int, target: memoryview) -> None:
        """Fill `target` (bytes) with the bytes from `start` on."""
        ...


def _require_range(start: int, length: int, size: int) -> None:
    if start < 0 or length < 0 or start + length > size:
        raise TrendFlowError("artifact_validation_failed", "The file is shorter than its contents declare.", size=size)


class BytesSource:
    """An object already in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.size = len(data)

    def read(self, start: int, length: int) -> bytes:
        _require_range(start, length, self.size)
        return bytes(self._data[start : start + length])

    def readinto(self, start: int, target: memoryview) -> None:
        _require_range(start, len(target), self.size)
        target[:] = self._data[start : start + len(target)]


class FileSource:
    """A local file; use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = BufferedReader(FileIO(path))
        self.size = os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()

    def read(self, start: int, length: int) -> bytes:
        _require_range(start, length, self.size)
        self._file.seek(start)
        return self._file.read(length)

    def readinto(self, start: int, target: memoryview) -> None:
        _require_range(start, len(target), self.size)
        self._file.seek(start)
        if self._file.readinto(target) != len(target):
            raise TrendFlowError("artifact_validation_failed", "The file shrank while it was read.")


class RangeSource:
    """An object in a store, fetched by range. Its tail, which holds the directory, is fetched once and kept."""

    _TAIL = 32 * 1024

    def __init__(self, size: int, get_range: Callable[[int, int], bytes]) -> None:
        self.size = size
        self._get_range = get_range
        self._tail_start = max(0, size - self._TAIL)
        self._tail = get_range(self._tail_start, size - self._tail_start) if size else b""

    def read(self, start: int, length: int) -> bytes:
        _require_range(start, length, self.size)
        if start >= self._tail_start:
            offset = start - self._tail_start
            return self._tail[offset : offset + length]
        data = self._get_range(start, length)
        if len(data) != length:
            raise TrendFlowError("artifact_validation_failed", "The object changed its size while it was read.")
        return data

    def readinto(self, start: int, target: memoryview) -> None:
        if len(target):
            target[:] = self.read(start, len(target))
