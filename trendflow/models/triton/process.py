"""Processes told apart beyond their ids: an id is given to another process one day, its start is not."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@contextmanager
def exact_process(pid: int, started_ticks: int) -> Iterator[int | None]:
    """A handle that can only mean the process that started then, or None when that process is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # Looked up after opening: the handle then belongs to the process whose start was compared.
        yield handle if started_ticks_of(pid) == started_ticks else None
    finally:
        os.close(handle)


def end_process(handle: int, grace_s: float) -> None:
    """Ask a process to end, and make it end after `grace_s` seconds."""
    with suppress(ProcessLookupError):  # it may end by itself at any moment
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not select.select([handle], [], [], grace_s)[0]:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [])


def session_members(leader: int, leader_started_ticks: int) -> list[tuple[int, int]]:
    """Id and start of every process that lives in the session which that process opened.

    The kernel gives no id to a new process while a session still bears it. Where the id belongs to another process by
    now, nothing of the session is left.
    """
    found = _stat(leader)
    if found is not None and found.started_ticks != leader_started_ticks:
        return []
    members = ((int(entry.name), _stat(int(entry.name))) for entry in _PROC.iterdir() if entry.name.isdigit())
    return [
        (pid, stat.started_ticks)
        for pid, stat in members
        if stat is not None and stat.session == leader and stat.state not in "ZX"
    ]


@dataclass(frozen=True)
class _Stat:
    """Of a process: state (one letter, Z and X are dead), session, and its start in clock ticks since boot."""

    state: str
    session: int
    started_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything. Behind it, proc(5): field 3 is state, 6 session, 22 starttime.
    fields = text.rpartition(")")[2].split()
    return _Stat(fields[0], int(fields[3]), int(fields[19]))


def started_ticks_of(pid: int) -> int | None:
    """When a process started; None when it is gone or only waits to be reaped."""
    stat = _stat(pid)
    return None if stat is None or stat.state in "ZX" else stat.started_ticks
