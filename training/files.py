"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.object_store import ObjectStore


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tmp-", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A scratch folder that becomes `target` when the block succeeds and vanishes when it fails.

    Raises `config_invalid` when `target` exists: results are never overwritten.
    """
    if target.exists():
        raise TrendFlowError("config_invalid", f"The folder {target.name!r} exists already.", name=target.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=".tmp-"))
    try:
        yield scratch
        for path in sorted(scratch.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        scratch.chmod(0o755)
        scratch.rename(target)
        parent = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def publish_folder(folder: Path, store: ObjectStore, prefix: str, last: str) -> None:
    """Put every file of `folder` under `prefix`; `last` goes last, so its presence says that the rest is complete."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in sorted(paths, key=lambda path: path.relative_to(folder).as_posix() == last):
        store.put_file(f"{prefix}/{path.relative_to(folder).as_posix()}", path)
