"""A proxy before a real S3 server that loses, delays, cuts and refuses requests, as networks and servers do."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, get_args
from urllib.parse import urlsplit

Fault = Literal[
    "reset",  # the connection ends before anything was read
    "cut_request",  # it ends in the middle of what is sent
    "lose_request",  # everything was sent, the server never saw it
    "lose_answer",  # the server did what was asked, and nobody learns of it
    "cut_answer",  # the answer ends in its middle
    "hang",  # no answer comes for as long as the client waits
    "internal_error",  # status 500
    "overloaded",  # status 503
    "forbidden",  # status 403
]
PASSING: tuple[Fault, ...] = get_args(Fault)[:-1]
"""What may be gone with the next try."""

_REFUSALS = {
    "internal_error": (500, "InternalError"),
    "overloaded": (503, "SlowDown"),
    "forbidden": (403, "AccessDenied"),
}


@dataclass(frozen=True)
class Request:
    """A request as the proxy saw it; `number` counts from 1."""

    number: int
    method: str
    path: str


Sign = Callable[[str, str, dict[str, str], bytes], dict[str, str]]
"""Gives method, path, headers and body the headers that the server gets instead."""


class S3Proxy(ThreadingHTTPServer):
    """Forwards every request to the server; `decide` says what goes wrong with one. It hears of one at a time."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream)
        self.decide: Callable[[Request], Fault | None] = lambda request: None
        self.resign: Sign | None = None
        self.seen: list[Request] = []
        self.done: Counter[Fault] = Counter()
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def judge(self, method: str, path: str) -> Fault | None:
        with self._lock:
            request = Request(len(self.seen) + 1, method, path)
            self.seen.append(request)
            fault = self.decide(request)
            if fault is not None:
                self.done[fault] += 1
            return fault


@contextmanager
def proxy_of(upstream: str) -> Iterator[S3Proxy]:
    """A proxy that works until the block ends."""
    server = S3Proxy(upstream)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: S3Proxy

    def _serve(self) -> None:
        self.close_connection = True
        fault = self.server.judge(self.command, self.path)
        length = int(self.headers.get("Content-Length", 0))
        if fault == "reset":
            return
        if fault == "cut_request":
            self.rfile.read(length // 2)
            return
        body = self.rfile.read(length)
        if fault == "hang":
            self.connection.recv(1)  # nothing more is sent: it returns when the client gives up
            return
        if fault in _REFUSALS:
            self._refuse(*_REFUSALS[fault])
            return
        if fault != "lose_request":
            self._forward(body, fault)

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        connection = http.client.HTTPConnection(self.server.upstream.hostname or "", self.server.upstream.port or 0)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            headers = dict(self.headers.items())  # Host included: it is part of the signature
            if self.server.resign is not None:
                headers = self.server.resign(self.command, self.path, headers, body)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            data = answer.read()
        except OSError:  # nobody listens there, which the client sees as it would without a proxy
            return
        finally:
            connection.close()
        if fault == "lose_answer":
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        size = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", size or "0")
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault == "cut_answer" else data)

    def _refuse(self, status: int, code: str) -> None:
        data = f"<Error><Code>{code}</Code><Message>as the test wants it</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

    def log_message(self, format: str, *args: object) -> None:
        return
