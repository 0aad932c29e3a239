"""Tiny services: HTTP servers of the standard library, started by the fleet like any other program, and their fates."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trendflow.fleet.health import answers_http
from trendflow.fleet.service import Blueprint, Service, Site
from trendflow.fleet.state import read_state
from trendflow.fleet.status import fleet_status
from trendflow.fleet.supervisor import Fleet

# Says what it does, then serves its folder until it is told to end. The list of endings is shared by all services.
SERVER = """
import http.server, signal, sys
name, port, endings = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def end(number, frame):
    with open(endings, "a") as file:
        file.write(name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print(name, "listens", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
LIMIT_S = 120.0
HOLDER = f"""
import sys
sys.path[:0] = {sys.path!r}
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def web(name: str, *needs: str, program: str = SERVER, **changes: Any) -> Blueprint:
    """A service that runs `program` with its name, its port and the file of endings."""

    def build(site: Site) -> Service:
        port = site.port(name, "http")
        values: dict[str, Any] = {
            "command": (sys.executable, "-u", "-c", program, name, str(port), str(site.folder / "endings")),
            "folder": site.service_folder(name),
            "health": answers_http(port, "/"),
            "start_limit_s": LIMIT_S,
            "stop_limit_s": LIMIT_S,
            "stop_signal": signal.SIGTERM,
        }
        return Service(**values | changes)

    return Blueprint(name=name, build=build, ports=("http",), secrets=("key",), needs=needs)


def conditions(fleet: Fleet) -> dict[str, str]:
    return {row["service"]: row["condition"] for row in fleet_status(fleet.folder, fleet.blueprints)["services"]}


def pids(fleet: Fleet) -> dict[str, int]:
    return {found.service: found.process.pid for found in read_state(fleet.folder).processes}


def kill(pid: int) -> None:
    """End a child at once and wait until nothing of it is left but its exit code: its port is free then."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@contextmanager
def held(lock: Path) -> Iterator[Callable[[], object]]:
    """Another process holds this lock until what is yielded is called, or the block ends."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield lambda: holder.communicate()
