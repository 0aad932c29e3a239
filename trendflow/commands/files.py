"""Files that a command writes where the user says."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError, as_typed


def write_output(path: Path, data: bytes) -> None:
    """Write a complete file or none; missing folders above it are made.

    A link is followed. What is neither file nor folder, such as `/dev/stdout` or a named pipe, is written to: moving a
    file there would take the place of the device itself.

    Raises `config_invalid` when the place cannot be written and `storage_unavailable` when only space is missing.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            path.write_bytes(data)
            return
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".tmp-", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(data)
                file.flush()
                os.chmod(temporary, 0o666 & ~_umask())  # a temporary file is its owner's alone
                temporary.replace(target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except OSError as exc:
        raise cannot_be_written(path, exc) from exc


def require_folder(path: Path) -> None:
    """Find out before hours of work whether files can be written below `path`; nothing is made yet.

    Raises `config_invalid`.
    """
    try:
        above = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as exc:
        raise cannot_be_written(path, exc) from exc


def cannot_be_written(path: Path, exc: OSError) -> TrendFlowError:
    """`config_invalid` with the reason, `storage_unavailable` when only space is missing."""
    typed = as_typed(exc)
    if typed.error_code == "storage_unavailable":
        return typed
    reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
    return TrendFlowError("config_invalid", f"The output {path.name!r} cannot be written: {reason}.", errno=exc.errno)


def _umask() -> int:
    """The mask for new files; the system tells it only in exchange for another."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
