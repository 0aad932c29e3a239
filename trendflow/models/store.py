"""Weight files on local disk: where they are, and the proof that they are the ones the catalogue means."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry, WeightsFile

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

    def state(self, entry: CatalogueEntry, file: WeightsFile) -> FileState:
        """Whether the file is there and is the pinned one."""
        path = self.path(entry, file)
        try:
            stat = path.stat()
            if stat.st_size != file.bytes:
                return "mismatch"
            return "present" if self._digest(path, stat) == file.sha256 else "mismatch"
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
                problem = "is absent" if state == "missing" else "is not the file the catalogue pins"
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
        file. Raises `weights_missing` when the bytes differ from the pinned ones.
        """
        target = self.path(entry, file)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            self.accept(entry, file, temporary)
        finally:
            temporary.unlink(missing_ok=True)

    def accept(self, entry: CatalogueEntry, file: WeightsFile, candidate: Path) -> None:
        """Move `candidate` into place. Raises `weights_missing` when it is not the pinned file."""
        digest = file_sha256(candidate)
        if digest != file.sha256:
            raise TrendFlowError(
                "weights_missing",
                f"The file obtained for {entry.name} {entry.version} is not the one the catalogue pins.",
                entry=entry.name,
                file=file.path,
                expected_sha256=file.sha256,
                found_sha256=digest,
            )
        candidate.chmod(0o644)  # temporary files are private by default; workers may run as another user
        with candidate.open("rb") as written:
            os.fsync(written.fileno())
        candidate.replace(self.path(entry, file))

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


def file_sha256(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            hasher.update(piece)
    return hasher.hexdigest()
