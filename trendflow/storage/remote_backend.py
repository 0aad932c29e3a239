"""Objects in an S3-compatible store or in memory, through obstore.

Retries happen here and not inside obstore, because a conditional write whose answer was lost may have succeeded: the
writer then re-reads the object and recognises its own success by a nonce stored as object metadata.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import MemoryStore, S3Store

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.backend import ObjectInfo, ObjectNotFound, Payload, chunks
from trendflow.storage.retry import RetryPolicy, exhausted
from trendflow.storage.s3_errors import diagnose, names_missing_bucket

T = TypeVar("T")
log = logging.getLogger(__name__)

_NONCE = "writer-nonce"
_DOWNLOAD_CHUNK = 8 << 20
_SINGLE_PUT_BYTES = 8 << 20
_DELETE_BATCH = 1000
# A conflict (409), a failed precondition (412) and a missing object (404 on If-Match) all mean: lost, read again.
_LOST = (AlreadyExistsError, PreconditionError, FileNotFoundError)


class RemoteBackend:
    """An obstore store behind the project's own rules for errors, retries and ambiguous answers."""

    def __init__(self, store: S3Store | MemoryStore, retry: RetryPolicy) -> None:
        self._store = store
        self._retry = retry

    def get(self, key: str) -> bytes:
        return self._call(key, lambda: obstore.get(self._store, key).bytes().to_bytes())

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        def read() -> tuple[bytes, str]:
            result = obstore.get(self._store, key)
            etag = result.meta["e_tag"]
            if etag is None:
                raise TrendFlowError("config_invalid", "The store gives no ETags, so it cannot be written safely.")
            return result.bytes().to_bytes(), etag

        return self._call(key, read)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        if length == 0:
            return b""
        return self._call(key, lambda: obstore.get_range(self._store, key, start=start, length=length).to_bytes())

    def head(self, key: str) -> ObjectInfo:
        return self._call(key, lambda: _info(obstore.head(self._store, key)))

    def put(self, key: str, data: Payload) -> None:
        # A list of buffers goes up as a multipart upload without being joined in memory first.
        body = _body(data) if sum(map(len, chunks(data))) <= _SINGLE_PUT_BYTES else [*chunks(data)]
        self._call(key, lambda: obstore.put(self._store, key, body))

    def put_if_absent(self, key: str, data: Payload) -> bool:
        return self._put_conditionally(key, data, "create")

    def put_if_match(self, key: str, data: Payload, etag: str) -> bool:
        return self._put_conditionally(key, data, {"e_tag": etag})

    def put_file(self, key: str, path: Path) -> None:
        self._call(key, lambda: obstore.put(self._store, key, path))

    def get_file(self, key: str, path: Path) -> None:
        def download() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            incomplete = path.with_name(f".tmp-{uuid.uuid4().hex}")
            try:
                with open(incomplete, "wb") as file:
                    for chunk in obstore.get(self._store, key).stream(min_chunk_size=_DOWNLOAD_CHUNK):
                        file.write(chunk)
                incomplete.rename(path)
            finally:
                incomplete.unlink(missing_ok=True)

        self._call(key, download)

    def copy(self, source: str, target: str) -> None:
        self._call(source, lambda: obstore.copy(self._store, source, target))

    def delete(self, key: str) -> bool:
        try:
            self.head(key)
        except ObjectNotFound:
            return False
        self._call(key, lambda: obstore.delete(self._store, key))
        return True

    def delete_prefix(self, prefix: str) -> int:
        keys = [info.key for info in self.list(prefix)]
        for start in range(0, len(keys), _DELETE_BATCH):
            self._call(prefix, partial(obstore.delete, self._store, keys[start : start + _DELETE_BATCH]))
        return len(keys)

    def list(self, prefix: str, after: str | None = None) -> Iterator[ObjectInfo]:
        def collect() -> list[ObjectInfo]:
            return [_info(meta) for page in obstore.list(self._store, prefix or None, offset=after) for meta in page]

        yield from sorted(self._call(prefix, collect), key=lambda info: info.key)

    def folders(self, prefix: str) -> tuple[str, ...]:
        listing = self._call(prefix, lambda: obstore.list_with_delimiter(self._store, prefix or None))
        return tuple(sorted(folder.rstrip("/").rpartition("/")[2] for folder in listing["common_prefixes"]))

    def local_path(self, key: str) -> Path | None:
        return None

    def sweep_stale(self, older_than_sec: float, *, dry_run: bool) -> int:
        # A dead S3 upload leaves no visible object; its parts fall to the bucket's lifecycle rule.
        return 0

    def _put_conditionally(self, key: str, data: Payload, mode: Any) -> bool:
        nonce = uuid.uuid4().hex
        body = _body(data)
        unsure = False
        for last in self._retry.attempts():
            try:
                obstore.put(self._store, key, body, mode=mode, attributes={_NONCE: nonce}, use_multipart=False)
                return True
            except _LOST as exc:
                if names_missing_bucket(exc):
                    raise diagnose(exc, key).error from exc
                # After a lost answer the refusal may be the echo of this writer's own success.
                return unsure and self._written_by(key, nonce)
            except (BaseError, OSError) as exc:
                found = diagnose(exc, key)
                unsure = unsure or found.may_have_worked
                _log_failure(key, exc)
                if last or not found.retry:
                    if unsure and self._written_by(key, nonce):
                        return True
                    raise (exhausted(found.error) if last else found.error) from exc
        raise AssertionError("a retry policy always has a last try")

    def _written_by(self, key: str, nonce: str) -> bool:
        try:
            attributes = self._call(key, lambda: obstore.get(self._store, key).attributes)
        except ObjectNotFound:
            return False
        return attributes.get(_NONCE) == nonce

    def _call(self, key: str, operation: Callable[[], T]) -> T:
        for last in self._retry.attempts():
            try:
                return operation()
            except FileNotFoundError as exc:
                if names_missing_bucket(exc):
                    raise diagnose(exc, key).error from exc
                raise ObjectNotFound.at(key) from exc
            except (BaseError, OSError) as exc:
                found = diagnose(exc, key)
                _log_failure(key, exc)
                if last or not found.retry:
                    raise (exhausted(found.error) if last else found.error) from exc
        raise AssertionError("a retry policy always has a last try")


def _log_failure(key: str, exc: Exception) -> None:
    # Only the type: the text quotes the endpoint and the server's answer.
    log.warning("store request failed key=%s error=%s", key, type(exc).__name__)


def _body(data: Payload) -> bytes:
    return data if isinstance(data, bytes) else b"".join(data)


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["e_tag"], meta["last_modified"])
