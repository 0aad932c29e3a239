"""Weight files on local disk: where they are, and the proof that they are the ones the catalogue means.

A pinned file proves itself by its sha256. A file made here from a pinned download has a receipt beside it that says
which source and recipe it came from and what it was; it finds what has changed since, by accident or by another
program, not a forger who may write both.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError, as_typed
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.sources import WeightsFile

FileState = Literal["present", "missing", "mismatch"]

_CHUNK = 1 << 20


class WeightsStore:
    """The models directory: `<root>/<entry>/<version>/<file>`.

    Hashing is remembered per process by (path, size, mtime, inode), so warm workers do not read 100 MB again for
    every video, while a file replaced in the meantime is hashed anew.
    """

    _memo: ClassVar[dict[tuple[str, int, int, int], str]] = {}
    _memo_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, entry: CatalogueEntry, file: WeightsFile) -> Path:
        return self.root / entry.folder / file.path

    def prepare(self, entry: CatalogueEntry, file: WeightsFile) -> Path:
        """Where the file goes, its folder made. Raises `config_invalid` when nothing can be written there."""
        path = self.path(entry, file)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(path.parent, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as exc:
            typed = as_typed(exc)
            if typed.error_code == "storage_unavailable":
                raise typed from exc
            reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
            raise TrendFlowError(
                "config_invalid",
                f"The models folder, which TRENDFLOW_HOME or TRENDFLOW_MODELS names, cannot be written: {reason}.",
                errno=exc.errno,
            ) from exc
        return path

    def receipt_path(self, entry: CatalogueEntry, file: WeightsFile) -> Path:
        """Where the receipt of a file made from a download lies."""
        path = self.path(entry, file)
        return path.with_name(f"{path.name}.receipt.json")

    def state(self, entry: CatalogueEntry, file: WeightsFile) -> FileState:
        """Whether the file is there and is the one that is meant. Without its receipt a built file is missing."""
        path = self.path(entry, file)
        try:
            stat = path.stat()
            expected = self._expected(entry, file)
            if expected is None or stat.st_size != expected[1]:
                return "mismatch"
            return "present" if self._digest(path, stat) == expected[0] else "mismatch"
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
        except OSError as exc:
            raise TrendFlowError(
                "weights_missing", f"The weights of {entry.name} cannot be read.", entry=entry.name, errno=exc.errno
            ) from exc

    def entry_state(self, entry: CatalogueEntry) -> FileState:
        """The worst state among the files of an entry; an entry without files is always present."""
        states = {self.state(entry, file) for file in entry.files}
        for state in ("mismatch", "missing"):
            if state in states:
                return state
        return "present"

    def entry_bytes(self, entry: CatalogueEntry) -> int:
        """Size of all files; of one made from a download its source stands in, 0 where that is not known either."""
        return sum(file.bytes or entry.source.bytes or 0 for file in entry.files)

    def verify(self, entry: CatalogueEntry) -> list[Path]:
        """Paths of all files of the entry, digests checked. Raises `weights_missing`."""
        return self._verified(entry, entry.files)

    def verify_companions(self, entry: CatalogueEntry) -> list[Path]:
        """Paths of the files beside the model, such as a tokenizer: all that a client of a model server needs."""
        return self._verified(entry, entry.files[1:])

    def _verified(self, entry: CatalogueEntry, files: tuple[WeightsFile, ...]) -> list[Path]:
        paths = []
        for file in files:
            state = self.state(entry, file)
            if state != "present":
                pinned = "what was made from its source" if file.is_built_from_source else "the file the catalogue pins"
                problem = "is absent" if state == "missing" else f"is not {pinned}"
                raise TrendFlowError(
                    "weights_missing",
                    f"The weights file {file.path} of {entry.name} {entry.version} {problem}; "
                    f"run 'trendflow models {'pull' if entry.source.kind == 'url' else 'build'}'.",
                    entry=entry.name,
                    file=file.path,
                    state=state,
                )
            paths.append(self.path(entry, file))
        return paths

    @contextmanager
    def placing(self, entry: CatalogueEntry, file: WeightsFile) -> Iterator[Path]:
        """A temporary path; what is written there becomes the file, if its digest is right.

        The move is atomic and the temporary name unique, so concurrent builders and readers never meet half a
        file. Raises `weights_missing` when the bytes differ from the pinned ones, `config_invalid` as `prepare` does.
        """
        target = self.prepare(entry, file)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            self.accept(entry, file, temporary)
        finally:
            temporary.unlink(missing_ok=True)

    def accept(self, entry: CatalogueEntry, file: WeightsFile, candidate: Path) -> None:
        """Move `candidate` into place. Raises `weights_missing` when it is not the pinned file.

        A file made from a download is taken as it is and gets its receipt; a crash between the two leaves a file
        without a valid receipt, which is not `present`.
        """
        digest = file_sha256(candidate)
        if not file.is_built_from_source and digest != file.sha256:
            raise TrendFlowError(
                "weights_missing",
                f"The file obtained for {entry.name} {entry.version} is not the one the catalogue pins.",
                entry=entry.name,
                file=file.path,
                expected_sha256=file.sha256,
                found_sha256=digest,
            )
        size = candidate.stat().st_size
        _publish(candidate, self.path(entry, file))
        if file.is_built_from_source:
            receipt = {"identity": entry.source.built_identity, "sha256": digest, "bytes": size}
            target = self.receipt_path(entry, file)
            temporary = target.with_name(f".{target.name}.{os.getpid()}")
            try:
                temporary.write_bytes(canonical_json(receipt))
                _publish(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def _expected(self, entry: CatalogueEntry, file: WeightsFile) -> tuple[str, int] | None:
        """sha256 and size the file must have; None when its receipt is of another source or recipe, or no receipt.

        Raises FileNotFoundError when a built file has no receipt.
        """
        if file.bytes is not None:
            return file.sha256, file.bytes
        try:
            receipt = json.loads(self.receipt_path(entry, file).read_bytes())
            if receipt["identity"] != entry.source.built_identity:
                return None
            return str(receipt["sha256"]), int(receipt["bytes"])
        except (ValueError, TypeError, KeyError):  # not JSON, or JSON of another shape
            return None

    @classmethod
    def _digest(cls, path: Path, stat: os.stat_result) -> str:
        key = (str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)
        with cls._memo_lock:
            known = cls._memo.get(key)
        if known is None:
            known = file_sha256(path)
            with cls._memo_lock:
                cls._memo[key] = known
        return known


def _publish(candidate: Path, target: Path) -> None:
    candidate.chmod(0o644)  # temporary files are private by default; workers may run as another user
    with candidate.open("rb") as written:
        os.fsync(written.fileno())
    candidate.replace(target)


def file_sha256(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            hasher.update(piece)
    return hasher.hexdigest()
