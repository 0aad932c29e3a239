"""Files of the fleet: written complete or not at all, and secret ones readable by nobody else."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from trendflow.contracts.errors import unwritable


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by a file that only this user may read; a reader sees the old or the new content.

    Raises `storage_unavailable` when space is missing, `config_invalid` for a place that cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())  # ports and passwords must outlive a power cut, or the data behind them do not
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise unwritable(exc, "The folder of the fleet") from exc


def make_folder(path: Path, mode: int = 0o700) -> None:
    """Create a folder, its parents included. Raises what `write_atomically` does."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    except OSError as exc:
        raise unwritable(exc, "The folder of the fleet") from exc
