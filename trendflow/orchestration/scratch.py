"""Scratch folders: one per process and run, and what becomes of those whose process was killed."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from trendflow.orchestration.runs import RunContext

log = logging.getLogger(__name__)

ABANDONED_SEC = 3600.0
"""A process that lives marks its folder with every component, and none may take that long."""
_SWEEP_SEC = 600.0


def scratch_dir(run: RunContext) -> Path:
    """This process's own folder for the run: two attempts at one run must never meet in one."""
    return run.deployment.settings.scratch_dir / run.run_path / str(os.getpid())


def mark_scratch(run: RunContext) -> None:
    """Say that this process still works with its folder, if it has one."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(scratch_dir(run))


def drop_scratch(run: RunContext) -> None:
    """Remove this process's scratch folder; everything in it also stands in the store."""
    _remove(scratch_dir(run))


def sweep_scratch(root: Path, abandoned_sec: float = ABANDONED_SEC) -> int:
    """Remove what killed processes left below `root`: media and frames may not outlive their run. Returns how many.

    Judged by age and not by the process id, which means nothing on another host or in another container.
    """
    removed = 0
    for folder in _below(root, 4):
        try:
            abandoned = time.time() - folder.stat().st_mtime >= abandoned_sec
        except OSError:  # its process has just removed it, or it belongs to somebody else
            continue
        if abandoned:
            log.warning("a scratch folder that a process left is removed")
            _remove(folder)
            removed += 1
    return removed


def _below(folder: Path, levels: int) -> Iterator[Path]:
    """What lies so many levels below a folder, of which other processes remove parts meanwhile."""
    try:
        found = list(folder.iterdir())
    except OSError:  # gone, or no folder
        return
    for path in found:
        if levels == 1:
            yield path
        else:
            yield from _below(path, levels - 1)


def keep_scratch_swept(root: Path) -> None:
    """Sweep for as long as this process lives, from a thread of its own."""

    def sweep() -> None:
        while True:
            sweep_scratch(root)
            time.sleep(_SWEEP_SEC)  # the thread has nothing else to do

    threading.Thread(target=sweep, name="scratch", daemon=True).start()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for parent in (folder.parent, folder.parent.parent):
        with contextlib.suppress(OSError):  # another attempt is still at work there
            parent.rmdir()
