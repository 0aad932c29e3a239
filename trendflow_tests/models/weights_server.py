"""A real HTTP server for weights, on loopback."""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DATA = random.Random(0).randbytes(1 << 20)


@dataclass
class Server:
    """A weights server whose misbehaviour a test can choose."""

    url: str = ""
    data: bytes = DATA
    status: int = 200
    ranges: bool = True
    break_after: int | None = None
    shift: int = 0
    redirect: str | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def weights_server() -> Iterator[Server]:
    """A server on loopback that runs inside the block."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            state.requests.append((self.path, wanted))
            if state.redirect is not None:
                self.send_response(302)
                self.send_header("Location", state.redirect)
                self.end_headers()
                return
            if state.status != 200:
                self.send_response(state.status)
                self.send_header("Retry-After", "7")
                self.end_headers()
                return
            start = int(re.findall(r"\d+", wanted)[0]) if wanted and state.ranges else 0
            body = state.data[start:]
            self.send_response(206 if start else 200)
            if start:
                first, last = start + state.shift, len(state.data) - 1
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(state.data)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.break_after])

        def log_message(self, format: str, *args: object) -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        state.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield state
        httpd.shutdown()
        thread.join()
