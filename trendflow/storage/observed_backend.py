"""A store that tells how long its requests take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from trendflow.storage.backend import Backend, ObjectInfo, Payload


class StoreObserver(Protocol):
    """Hears of requests; called from any thread."""

    def requested(self, op: str, seconds: float) -> None:
        """A request ended, well or not; `op` is the method's name."""
        ...

    def lost(self, key: str) -> None:
        """A conditional write came too late: another one was before it."""
        ...


class ObservedBackend:
    """Another backend, with an observer. Listings count until they are read to their end."""

    def __init__(self, backend: Backend, observer: StoreObserver) -> None:
        self._backend, self._observer = backend, observer

    def get(self, key: str) -> bytes:
        with self._timed("get"):
            return self._backend.get(key)

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        with self._timed("get"):
            return self._backend.get_with_etag(key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        with self._timed("get_range"):
            return self._backend.get_range(key, start, length)

    def head(self, key: str) -> ObjectInfo:
        with self._timed("head"):
            return self._backend.head(key)

    def put(self, key: str, data: Payload) -> None:
        with self._timed("put"):
            self._backend.put(key, data)

    def put_if_absent(self, key: str, data: Payload) -> bool:
        with self._timed("put_if_absent"):
            return self._won(key, self._backend.put_if_absent(key, data))

    def put_if_match(self, key: str, data: Payload, etag: str) -> bool:
        with self._timed("put_if_match"):
            return self._won(key, self._backend.put_if_match(key, data, etag))

    def put_file(self, key: str, path: Path) -> None:
        with self._timed("put"):
            self._backend.put_file(key, path)

    def get_file(self, key: str, path: Path) -> None:
        with self._timed("get"):
            self._backend.get_file(key, path)

    def copy(self, source: str, target: str) -> None:
        with self._timed("copy"):
            self._backend.copy(source, target)

    def delete(self, key: str) -> bool:
        with self._timed("delete"):
            return self._backend.delete(key)

    def delete_prefix(self, prefix: str) -> int:
        with self._timed("delete_prefix"):
            return self._backend.delete_prefix(prefix)

    def list(self, prefix: str, after: str | None = None) -> Iterator[ObjectInfo]:
        with self._timed("list"):
            yield from self._backend.list(prefix, after)

    def folders(self, prefix: str) -> tuple[str, ...]:
        with self._timed("list"):
            return self._backend.folders(prefix)

    def local_path(self, key: str) -> Path | None:
        return self._backend.local_path(key)

    def sweep_stale(self, older_than_sec: float, *, dry_run: bool) -> int:
        return self._backend.sweep_stale(older_than_sec, dry_run=dry_run)

    def _won(self, key: str, won: bool) -> bool:
        if not won:
            self._observer.lost(key)
        return won

    @contextmanager
    def _timed(self, op: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._observer.requested(op, time.perf_counter() - began)
