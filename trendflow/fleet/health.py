"""Health checks that services share. Each proves that the service answers, not only that its process lives."""

from __future__ import annotations

import socket

import httpx

from trendflow.fleet.service import Health
from trendflow.loopback import HOST

CALL_TIMEOUT_S = 5.0


def answers_http(port: int, path: str) -> Health:
    """The service answers a GET of `path` with 200."""

    def check() -> str | None:
        try:
            # Proxies of the machine are for other hosts.
            answer = httpx.get(f"http://{HOST}:{port}{path}", timeout=CALL_TIMEOUT_S, trust_env=False)
        except httpx.HTTPError as exc:
            return f"it does not answer on port {port} ({type(exc).__name__})"
        return None if answer.status_code == 200 else f"it answers {answer.status_code} on port {port}"

    return check


def answers_resp(port: int, password: str) -> Health:
    """The service accepts the password and answers PING in the Redis serialisation protocol (RESP)."""

    def check() -> str | None:
        try:
            with socket.create_connection((HOST, port), timeout=CALL_TIMEOUT_S) as connection:
                connection.sendall(_resp("AUTH", password) + _resp("PING"))
                with connection.makefile("rb") as answers:
                    accepted, pong = answers.readline(), answers.readline()
        except OSError as exc:
            return f"it does not answer on port {port} ({type(exc).__name__})"
        if accepted != b"+OK\r\n":
            return f"another server answers on port {port}: it refuses the password"
        # While it reads its data it answers -LOADING.
        return None if pong == b"+PONG\r\n" else f"it answers PING with {pong.decode(errors='replace').strip()!r}"

    return check


def _resp(*words: str) -> bytes:
    parts = [f"*{len(words)}\r\n"] + [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return "".join(parts).encode()
