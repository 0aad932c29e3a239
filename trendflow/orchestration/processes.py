"""Names of processes as journals spell them, and whether one that was named lives."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from trendflow.processes import boot_id, started_ticks_of

_NO_LABEL = re.compile(r"[^A-Za-z0-9_.:@-]")
_PROCESS = re.compile(r".+:(?P<pid>[1-9][0-9]{0,8})@(?P<started>[0-9]+)\.(?P<space>[0-9a-f.]+)")


def as_label(name: str) -> str:
    """A name with what a journal does not take replaced."""
    return _NO_LABEL.sub("-", name)[-128:]


def this_process() -> str:
    """Name of this process: host and id, and what tells it from others that had or will have the same id there.

    These are when it started and the space of process ids that it lives in, where the kernel says so (Linux).
    """
    started = started_ticks_of(os.getpid())
    return _label(os.getpid()) if started is None else _label(os.getpid(), f"@{started}.{_space()}")


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
        return False  # one of another user, of which the kernel may show nothing
    return started_ticks_of(int(named["pid"])) != int(named["started"])


def _label(pid: int, more: str = "") -> str:
    return as_label(f"{socket.gethostname()}:{pid}{more}")


def _space() -> str:
    """The space of process ids that this process sees: hosts may share a name, and containers of a host have their own.

    Where nobody says which it is, it is taken for none that a label names.
    """
    try:
        return f"{boot_id()[:8]}.{''.join(filter(str.isdigit, os.readlink(Path('/proc/self/ns/pid'))))}"
    except OSError:
        return ""
