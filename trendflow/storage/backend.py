"""What every store behind `ObjectStore` provides, and the errors they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from trendflow.contracts.errors import TrendFlowError

Payload = bytes | Sequence[bytes | memoryview]
"""Bytes to store, as one object or as buffers to be written one after the other."""


class ObjectNotFound(TrendFlowError):
    """The object does not exist (`dependency_missing`, `detail.kind = "object"`)."""

    @classmethod
    def at(cls, key: str) -> ObjectNotFound:
        return cls("dependency_missing", f"The store holds no object {key!r}.", kind="object", key=key)


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object. `etag` is opaque; None where the store would have to read the object to know it."""

    key: str
    size: int
    etag: str | None
    last_modified: datetime


class Backend(Protocol):
    """Keys arrive validated. Missing objects raise `ObjectNotFound`, outages `storage_unavailable`.

    Every write is atomic: a reader sees the old object or the new one, never a part.
    """

    def get(self, key: str) -> bytes: ...

    def get_with_etag(self, key: str) -> tuple[bytes, str]: ...

    def get_range(self, key: str, start: int, length: int) -> bytes: ...

    def head(self, key: str) -> ObjectInfo: ...

    def put(self, key: str, data: Payload) -> None: ...

    def put_if_absent(self, key: str, data: Payload) -> bool: ...

    def put_if_match(self, key: str, data: Payload, etag: str) -> bool: ...

    def put_file(self, key: str, path: Path) -> None: ...

    def get_file(self, key: str, path: Path) -> None: ...

    def copy(self, source: str, target: str) -> None: ...

    def delete(self, key: str) -> bool:
        """True when an object was removed; removing a missing one is not an error."""
        ...

    def delete_prefix(self, prefix: str) -> int:
        """Remove everything below a folder; the number of objects removed."""
        ...

    def list(self, prefix: str, after: str | None = None) -> Iterator[ObjectInfo]:
        """Objects below a folder (or the whole store for ""), in key order.

        With `after`, a key directly in the folder, only those with later keys; the folder then has no folders in it.
        """
        ...

    def folders(self, prefix: str) -> tuple[str, ...]:
        """Names of the folders directly below a folder, sorted."""
        ...

    def local_path(self, key: str) -> Path | None:
        """Where the object lies on this machine's disk, or None for a remote store."""
        ...

    def sweep_stale(self, older_than_sec: float, *, dry_run: bool) -> int:
        """Remove, or only count, leftovers of writers that died at least that long ago; their number."""
        ...


def chunks(data: Payload) -> Sequence[bytes | memoryview]:
    return [data] if isinstance(data, bytes) else data
