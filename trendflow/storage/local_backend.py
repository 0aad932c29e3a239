"""Objects as files of one folder, with the guarantees a local file system can give.

obstore's own local store has neither compare-and-swap nor fsync, hence the standard library here:

* atomic write: complete temporary file, fsync, rename, fsync of the folder;
* put-if-absent: hard link of the complete temporary file to the final name, which fails when the name exists;
* compare-and-swap: the sha256 of the current bytes is compared under a lock file beside the object. Every write that
  replaces or removes an object of that folder takes the same lock, and the system frees it when its holder dies.

Temporary and lock files begin with a dot, which no key may, so listings cannot show them.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import random
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.backend import ObjectInfo, ObjectNotFound, Payload, chunks

_TEMP_PREFIX = ".tmp-"
_LOCK_NAME = ".lock"
_COPY_CHUNK = 8 << 20
# Bound the race with deletions; a file system that answers ENOENT for ever (/proc does) must not hang the caller.
# Rounds count too: where one of them takes seconds, a single deletion must not end a write.
_GIVE_UP_SEC = 5.0
_GIVE_UP_ROUNDS = 20
# A deletion that goes round faster than a writer gets from folder to file would win for ever without a random pause.
_PAUSE_SEC = 0.002
_CONFIGURATION_ERRORS = frozenset(
    {errno.EACCES, errno.EEXIST, errno.EPERM, errno.EROFS, errno.ENOTSUP, errno.ENOTDIR, errno.EISDIR}
)


class _Patience:
    """How often a write that lost its folder to a deletion starts again."""

    def __init__(self) -> None:
        self._give_up = time.monotonic() + _GIVE_UP_SEC
        self._rounds = 0

    def another_round(self) -> bool:
        """Pause, then True; False when it is time to give up."""
        self._rounds += 1
        if self._rounds > _GIVE_UP_ROUNDS and time.monotonic() > self._give_up:
            return False
        time.sleep(random.uniform(0, _PAUSE_SEC))
        return True


# A folder, or a name below an object, is no object: remote stores would not find it either.
_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


@contextmanager
def _typed_errors(key: str, missing: tuple[type[OSError], ...] = (FileNotFoundError,)) -> Iterator[None]:
    try:
        yield
    except missing as exc:
        raise ObjectNotFound.at(key) from exc
    except OSError as exc:
        # The message names the key, never the host path that the OSError carries.
        code = "config_invalid" if exc.errno in _CONFIGURATION_ERRORS else "storage_unavailable"
        where = repr(key) if key else "its own folder"
        raise TrendFlowError(
            code, f"The local store failed on {where}: {_reason(exc)}.", key=key, errno=exc.errno
        ) from exc


def _reason(exc: OSError) -> str:
    return os.strerror(exc.errno) if exc.errno else type(exc).__name__


class LocalBackend:
    """A folder on this machine. Safe for any number of processes on that machine."""

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            for folder in _make_folder(root):
                _sync_folder(folder)
        except OSError as exc:
            full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
            raise TrendFlowError(
                "storage_unavailable" if full else "config_invalid",
                "The folder of the local store, which TRENDFLOW_HOME or TRENDFLOW_STORE_URL names, cannot be created: "
                f"{_reason(exc)}.",
                errno=exc.errno,
            ) from exc

    def get(self, key: str) -> bytes:
        with _typed_errors(key, _MISSING):
            return self._path(key).read_bytes()

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        data = self.get(key)
        return data, _etag(data)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        with _typed_errors(key, _MISSING), open(self._path(key), "rb") as file:
            file.seek(start)
            return file.read(length)

    def head(self, key: str) -> ObjectInfo:
        with _typed_errors(key, _MISSING):
            found = self._path(key).stat()
        if not stat.S_ISREG(found.st_mode):
            raise ObjectNotFound.at(key)
        return _info(key, found)

    def put(self, key: str, data: Payload) -> None:
        with _typed_errors(key):
            self._write(self._path(key), _writer(data), self._replace)

    def put_if_absent(self, key: str, data: Payload) -> bool:
        with _typed_errors(key):
            path = self._path(key)
            return not path.is_file() and self._write(path, _writer(data), self._link)

    def put_if_match(self, key: str, data: Payload, etag: str) -> bool:
        def swap(temporary: Path, path: Path) -> bool:
            with _folder_lock(path.parent):
                try:
                    current = path.read_bytes()
                except FileNotFoundError:
                    return False
                if _etag(current) != etag:
                    return False
                os.rename(temporary, path)
                return True

        with _typed_errors(key):
            path = self._path(key)
            return path.is_file() and self._write(path, _writer(data), swap)

    def put_file(self, key: str, path: Path) -> None:
        def write(descriptor: int) -> None:
            with open(path, "rb") as file:
                while chunk := file.read(_COPY_CHUNK):
                    _write_all(descriptor, memoryview(chunk))

        with _typed_errors(key):
            self._write(self._path(key), write, self._replace)

    def get_file(self, key: str, path: Path) -> None:
        with _typed_errors(key, _MISSING):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = _temporary(path.parent)
            try:
                shutil.copyfile(self._path(key), temporary)
                os.rename(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def copy(self, source: str, target: str) -> None:
        self.head(source)
        self.put_file(target, self._path(source))

    def delete(self, key: str) -> bool:
        path = self._path(key)
        if not path.is_file():
            return False
        with _typed_errors(key):
            try:
                with _folder_lock(path.parent):
                    os.unlink(path)
                    _sync_folder(path.parent)
            except FileNotFoundError:
                return False
            return True

    def delete_prefix(self, prefix: str) -> int:
        removed = 0
        with _typed_errors(prefix):
            for folder, folders, files in os.walk(self._path(prefix), topdown=False):
                # The lock goes last: whoever waits for it finds the folder gone and starts again.
                for name in sorted(files, key=lambda name: name == _LOCK_NAME):
                    removed += _unlink(os.path.join(folder, name)) and not name.startswith(".")
                for name in folders:
                    _remove_empty(os.path.join(folder, name))
            if prefix:
                _remove_empty(str(self._path(prefix)))
        return removed

    def list(self, prefix: str, after: str | None = None) -> Iterator[ObjectInfo]:
        with _typed_errors(prefix):
            yield from self._walk(self._path(prefix), prefix, after or "")

    def folders(self, prefix: str) -> tuple[str, ...]:
        with _typed_errors(prefix):
            try:
                with os.scandir(self._path(prefix)) as entries:
                    return tuple(sorted(entry.name for entry in entries if entry.is_dir() and entry.name[0] != "."))
            except FileNotFoundError:
                return ()

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    def sweep_stale(self, older_than_sec: float, *, dry_run: bool) -> int:
        removed = 0
        limit = time.time() - older_than_sec
        with _typed_errors(""):
            for folder, _, files in os.walk(self._root):
                for name in files:
                    path = os.path.join(folder, name)
                    if name.startswith(_TEMP_PREFIX) and _older_than(path, limit):
                        removed += dry_run or _unlink(path)
        return removed

    def _path(self, key: str) -> Path:
        return self._root / key if key else self._root

    def _write(self, path: Path, write: Callable[[int], None], publish: Callable[[Path, Path], bool]) -> bool:
        """Write a complete, durable temporary file and publish it under its name.

        A concurrent `delete_prefix` may remove the folder in between; then the write starts again.
        """
        patience = _Patience()
        while True:
            parents = _make_folder(path.parent)
            temporary = _temporary(path.parent)
            try:
                _write_durably(temporary, write, parents)
                published = publish(temporary, path)
                if published:
                    _sync_folder(path.parent)
                return published
            except FileNotFoundError:
                if temporary.exists() or not patience.another_round():
                    raise
            finally:
                temporary.unlink(missing_ok=True)

    @staticmethod
    def _replace(temporary: Path, path: Path) -> bool:
        with _folder_lock(path.parent):
            os.rename(temporary, path)
        return True

    @staticmethod
    def _link(temporary: Path, path: Path) -> bool:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        return True

    def _walk(self, folder: Path, prefix: str, after: str) -> Iterator[ObjectInfo]:
        try:
            with os.scandir(folder) as entries:
                # "a.x" < "a/b" < "a0": a folder sorts as its name with the slash its keys continue with.
                named = sorted((entry.name + "/" * entry.is_dir(follow_symlinks=False), entry) for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            return
        for name, entry in named:
            if name.startswith("."):
                continue
            key = f"{prefix}/{entry.name}" if prefix else entry.name
            if name.endswith("/"):
                yield from self._walk(Path(entry.path), key, after)
            elif key > after:
                try:
                    yield _info(key, entry.stat())
                except FileNotFoundError:
                    continue  # removed since the folder was read: a listing shows what is there


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _info(key: str, found: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, found.st_size, None, datetime.fromtimestamp(found.st_mtime, UTC))


def _temporary(folder: Path) -> Path:
    return folder / f"{_TEMP_PREFIX}{os.getpid()}-{uuid.uuid4().hex}"


def _writer(data: Payload) -> Callable[[int], None]:
    def write(descriptor: int) -> None:
        for chunk in chunks(data):
            _write_all(descriptor, memoryview(chunk))

    return write


def _write_all(descriptor: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(descriptor, data) :]


def _write_durably(path: Path, write: Callable[[int], None], parents: Sequence[Path]) -> None:
    """Write a new file, after what its folder stands in: another writer may already rely on that folder."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    try:
        # Not before the file is there: a deletion removes a folder that waits empty for the disk.
        for folder in parents:
            _sync_folder(folder)
        write(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> list[Path]:
    """Create a folder and its missing parents; returns the folders to synchronise before anything in it is stored.

    A file in a folder that a crash forgets is lost. A concurrent `delete_prefix` may remove any of them at any moment;
    then the creation starts again.
    """
    patience = _Patience()
    while True:
        missing = list(itertools.takewhile(lambda path: not path.is_dir(), (folder, *folder.parents)))
        try:
            for path in reversed(missing):
                _make_one_folder(path)
            return [path.parent for path in missing]
        except FileNotFoundError:
            if not patience.another_round():
                raise


def _make_one_folder(folder: Path) -> None:
    """Create a folder whose parent exists. Raises FileNotFoundError when either was removed meanwhile."""
    try:
        os.mkdir(folder)
    except FileExistsError:
        # One look decides: asked twice, a folder may be gone at the first question and back at the second.
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) and not (stat.S_ISLNK(found.st_mode) and folder.is_dir()):
            raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _older_than(path: str, limit: float) -> bool:
    try:
        return os.stat(path).st_mtime < limit
    except FileNotFoundError:
        return False


def _remove_empty(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError as exc:
        # A writer that came in meanwhile keeps its folder.
        if exc.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Exclusive lock of one folder, freed by the system when its holder dies."""
    path = folder / _LOCK_NAME
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # The folder may have been deleted (and made again) while this process waited.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                yield
                return
        finally:
            os.close(descriptor)
