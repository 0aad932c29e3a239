"""Names of processes as journals spell them, and whether one that was named lives."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

_NO_LABEL = re.compile(r"[^A-Za-z0-9_.:@-]")
_PROCESS = re.compile(r".+:(?P<pid>[1-9][0-9]{0,8})@(?P<started>[0-9]+)\.(?P<space>[0-9]+)")
_PROC = Path("/proc")
_DEAD = ("Z", "X", "x")
"""States of a process that does nothing more and is still listed, because its parent has not asked for its end."""


def as_label(name: str) -> str:
    """A name with what a journal does not take replaced."""
    return _NO_LABEL.sub("-", name)[-128:]


def this_process() -> str:
    """Name of this process: host and id, and what tells it from others that had or will have the same id there.

    These are when it started and the space of process ids that it lives in, where the kernel says so (Linux).
    """
    found = _state_and_start(os.getpid())
    return _label(os.getpid()) if found is None else _label(os.getpid(), f"@{found[1]}.{_space()}")


def is_gone(label: str) -> bool:
    """Whether the label names a process that lived here and does not live any more.

    False for one of another host or container, and for a name that is not that of a process: nobody here can tell.
    """
    named = _PROCESS.fullmatch(label)
    if named is None or label != _label(int(named["pid"]), f"@{named['started']}.{_space()}"):
        return False
    try:
        os.kill(int(named["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # one of another user
    found = _state_and_start(int(named["pid"]))
    return found is not None and (found[0] in _DEAD or found[1] != named["started"])


def _label(pid: int, more: str = "") -> str:
    return as_label(f"{socket.gethostname()}:{pid}{more}")


def _state_and_start(pid: int) -> tuple[str, str] | None:
    """The state of a process, and when it started in ticks since its machine did (proc(5)); None if nobody says so."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold anything
    return fields[0], fields[19]


def _space() -> str:
    """The space of process ids that this process sees: containers of one host name may have one each."""
    try:
        return "".join(filter(str.isdigit, os.readlink(_PROC / "self" / "ns" / "pid")))
    except OSError:
        return ""
