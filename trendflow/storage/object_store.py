"""One interface over a local folder, an S3-compatible store and memory."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.backend import Backend, ObjectInfo, ObjectNotFound, Payload
from trendflow.storage.local_backend import LocalBackend
from trendflow.storage.observed_backend import ObservedBackend, StoreObserver
from trendflow.storage.probe import probe_conditional_writes
from trendflow.storage.retry import RetryPolicy

__all__ = ["ObjectInfo", "ObjectNotFound", "ObjectStore", "Payload", "validate_key"]

_MAX_KEY = 1024
# No segment begins with a dot: that rules out "..", and leaves such names to the store's own temporary files.
_SEGMENT = re.compile(r"[A-Za-z0-9_+=@-][A-Za-z0-9_.+=@-]{0,199}\Z")


def validate_key(key: str) -> str:
    """Return a key that is safe on every store, or raise `input_constraint_violated`.

    Keys are relative, `/`-separated, at most 1024 characters; segments are 1 to 200 of `A-Za-z0-9_.+=@-` and do not
    begin with a dot.
    """
    if len(key) > _MAX_KEY or not all(_SEGMENT.match(segment) for segment in key.split("/")):
        raise TrendFlowError("input_constraint_violated", f"{key[:120]!r} is not a valid object key.")
    return key


class ObjectStore:
    """Named objects with atomic and conditional writes.

    Writes are atomic on every store. `put_if_absent` and `put_if_match` return False when somebody else was first; the
    caller then reads again. Missing objects raise `ObjectNotFound`, outages `storage_unavailable`, wrong set-ups
    `config_invalid`.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @classmethod
    def open(
        cls, url: str, options: Mapping[str, str] | None = None, *, retry: RetryPolicy | None = None
    ) -> ObjectStore:
        """Open `file:///absolute/folder`, `memory://` (a new, empty store) or `s3://bucket/prefix`.

        `options` are those of the S3 client (`endpoint`, `region`, `access_key_id`, `secret_access_key`, …); what they
        leave out comes from `AWS_*` variables. Raises `config_invalid`.
        """
        parts = urlsplit(url)
        if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
            return cls(LocalBackend(Path(unquote(parts.path))))
        if parts.scheme == "memory" and not parts.netloc and not parts.path:
            from obstore.store import MemoryStore

            from trendflow.storage.remote_backend import RemoteBackend

            return cls(RemoteBackend(MemoryStore(), retry or RetryPolicy()))
        if parts.scheme == "s3" and parts.netloc:
            from trendflow.storage.remote_backend import RemoteBackend
            from trendflow.storage.s3_options import open_s3

            prefix = parts.path.strip("/")
            if prefix:
                validate_key(prefix)
            return cls(RemoteBackend(open_s3(parts.netloc, prefix, options or {}), retry or RetryPolicy()))
        raise TrendFlowError("config_invalid", "A store URL is file:///folder, memory:// or s3://bucket/prefix.")

    def observed(self, observer: StoreObserver) -> ObjectStore:
        """The same store, whose requests `observer` hears of."""
        return ObjectStore(ObservedBackend(self._backend, observer))

    def get(self, key: str) -> bytes:
        return self._backend.get(validate_key(key))

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """The bytes and the opaque ETag to hand to `put_if_match`."""
        return self._backend.get_with_etag(validate_key(key))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Bytes `start … start+length`; fewer at the end of the object."""
        if start < 0 or length < 0:
            raise TrendFlowError("input_constraint_violated", "A byte range has non-negative start and length.")
        return self._backend.get_range(validate_key(key), start, length)

    def head(self, key: str) -> ObjectInfo:
        return self._backend.head(validate_key(key))

    def exists(self, key: str) -> bool:
        try:
            self.head(key)
        except ObjectNotFound:
            return False
        return True

    def put(self, key: str, data: Payload) -> None:
        self._backend.put(validate_key(key), data)

    def put_if_absent(self, key: str, data: Payload) -> bool:
        """Create the object; False when it exists."""
        return self._backend.put_if_absent(validate_key(key), data)

    def put_if_match(self, key: str, data: Payload, etag: str) -> bool:
        """Replace the object if it still has this ETag; False when it changed or is gone."""
        return self._backend.put_if_match(validate_key(key), data, etag)

    def put_file(self, key: str, path: Path) -> None:
        """Upload a local file. Raises `dependency_missing` when there is none."""
        if not path.is_file():
            raise TrendFlowError("dependency_missing", f"The local file for {key!r} does not exist.", kind="file")
        self._backend.put_file(validate_key(key), path)

    def get_file(self, key: str, path: Path) -> None:
        """Download to a local file, which appears only when it is complete."""
        self._backend.get_file(validate_key(key), path)

    def copy(self, source: str, target: str) -> None:
        """Copy inside the store; the two objects are independent afterwards."""
        self._backend.copy(validate_key(source), validate_key(target))

    def delete(self, key: str) -> bool:
        """Remove an object; False when there was none."""
        return self._backend.delete(validate_key(key))

    def delete_prefix(self, prefix: str) -> int:
        """Remove every object below the folder `prefix`; returns how many there were."""
        return self._backend.delete_prefix(validate_key(prefix.removesuffix("/")))

    def list(self, prefix: str = "", *, after: str | None = None) -> Iterator[ObjectInfo]:
        """Objects below the folder `prefix` (not objects whose names merely begin with it), in key order.

        With `after`, the key of an object that is, was or might be directly in the folder, only those whose keys
        follow it; a store then does not look at the others. Only for folders without folders in them, which SeaweedFS
        has in another order than that of their keys.
        """
        folder = _folder(prefix)
        if after is not None and validate_key(after).rpartition("/")[0] != folder:
            raise TrendFlowError("input_constraint_violated", f"{after[:120]!r} is not directly in the folder listed.")
        return self._backend.list(folder, after)

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """Names of the folders directly below `prefix`, sorted."""
        return self._backend.folders(_folder(prefix))

    def local_path(self, key: str) -> Path | None:
        """Path of the object on this machine (read-only use), or None when the store is remote."""
        return self._backend.local_path(validate_key(key))

    def sweep_stale(self, older_than_sec: float = 3600.0, *, dry_run: bool = False) -> int:
        """Remove, or only count, temporary files of writers that died at least that long ago; returns their number."""
        return self._backend.sweep_stale(older_than_sec, dry_run=dry_run)

    def probe(self) -> None:
        """Prove that conditional writes work here; `config_invalid` when they do not."""
        probe_conditional_writes(self._backend)


def _folder(prefix: str) -> str:
    folder = prefix.removesuffix("/")
    return validate_key(folder) if folder else ""
