"""Processes told apart beyond their ids: an id is given to another process one day, its start is not."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError

_PROC = Path("/proc")
_PF_EXITING = 0x4 | 0x400  # and PF_SIGNALED, which a signal's last moment sets before
_KILL_TIMEOUT_S = 30.0


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
        found = _stat(pid)
        same = found is not None and found.started_ticks == started_ticks and not found.is_dead
        yield handle if same else None
    finally:
        os.close(handle)


def end_process(handle: int, grace_s: float, ask: signal.Signals = signal.SIGTERM) -> None:
    """Ask a process to end by the signal `ask`, and make it end after `grace_s` seconds.

    Raises `timeout` for one that not even the kernel can end now, because it waits for a device or a disk.
    """
    with suppress(ProcessLookupError):  # it may end by itself at any moment
        signal.pidfd_send_signal(handle, ask)
        if not _ended(handle, grace_s):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            if not _ended(handle, _KILL_TIMEOUT_S):
                raise TrendFlowError("timeout", "A process does not end, though it was killed.")


def end_session(leader: int, leader_started_ticks: int) -> None:
    """Kill whatever is left of the session which a process opened that has ended itself.

    Looked for again until nothing is found: what is about to be killed may start another process.
    """
    while members := session_members(leader, leader_started_ticks):
        for pid, started_ticks in members:
            with exact_process(pid, started_ticks) as orphan:
                if orphan is not None:
                    end_process(orphan, 0)


def _ended(handle: int, timeout_s: float) -> bool:
    """Whether the process ends in time. Not `select`, which refuses the 1024th open file of a process."""
    waiting = select.poll()
    waiting.register(handle, select.POLLIN)
    return bool(waiting.poll(timeout_s * 1000))


def boot_id() -> str:
    """Names this start of the kernel; process ids and ticks of another one mean nothing here."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


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
        if stat is not None and stat.session == leader and not stat.is_dead
    ]


def processes_with(variable: str, value: str) -> list[tuple[int, int]]:
    """Id and start of every process that was started with this variable, as far as this user may see that."""
    wanted = f"{variable}={value}".encode()
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue  # it ended meanwhile, or is another user's
            stat = _stat(int(entry.name)) if wanted in variables else None
            if stat is not None and not stat.is_dead:
                found.append((int(entry.name), stat.started_ticks))
    return found


@dataclass(frozen=True)
class _Stat:
    """Of a process: state (one letter, Z and X are dead), session, the kernel's flags, start in ticks since boot."""

    state: str
    session: int
    flags: int
    started_ticks: int

    @property
    def is_dead(self) -> bool:
        return self.state in "ZX"

    @property
    def is_exiting(self) -> bool:
        return bool(self.flags & _PF_EXITING)


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold anything. Behind it, proc(5): field 3 is state, 6 session, 9 flags, 22 starttime.
    fields = text.rpartition(")")[2].split()
    return _Stat(fields[0], int(fields[3]), int(fields[6]), int(fields[19]))


def _is_killed(pid: int) -> bool:
    """Whether SIGKILL is on its way: a large process lives on for milliseconds, but answers nobody any more."""
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return True
    pending = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(mask >> (signal.SIGKILL - 1) & 1 for mask in pending)


def started_ticks_of(pid: int) -> int | None:
    """When a process started; None when it is gone, is being killed or only waits to be reaped."""
    # Signals first: one that is delivered between the two readings shows in the flags.
    if _is_killed(pid):
        return None
    stat = _stat(pid)
    return None if stat is None or stat.is_dead or stat.is_exiting else stat.started_ticks
