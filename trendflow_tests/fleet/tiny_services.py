"""Tiny services: HTTP servers of the standard library, started by the fleet like any other program."""

from __future__ import annotations

import signal
import sys
from typing import Any

from trendflow.fleet.health import answers_http
from trendflow.fleet.service import Blueprint, Service, Site

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
