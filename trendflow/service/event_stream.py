"""Server-sent events of one run: its log as it grows, resumable by sequence number."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Any

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from trendflow.service.failures import Refusal
from trendflow.service.parts import ServiceLimits
from trendflow.state.events import Event
from trendflow.state.store import StateStore
from trendflow.state.transitions import RUN_END

_NAMES = {
    "run_status": "status",
    "processor_status": "stage",
    "component_status": "component",
    "component_progress": "component",
}


_LOOKS_AT_ONCE = 8


class Streams:
    """Who listens to which run, in this process. What they wait for has threads of its own: `limiter`."""

    def __init__(self, limits: ServiceLimits) -> None:
        self._limits, self._lock = limits, threading.Lock()
        self._open: Counter[str] = Counter()
        # However many listen, they cannot take the threads in which all other paths are answered.
        self.limiter = anyio.CapacityLimiter(_LOOKS_AT_ONCE)

    def enter(self, run_path: str, user_id: str) -> None:
        """Raises a 429 when nobody else may listen; otherwise `leave` has to follow."""
        limits = self._limits
        with self._lock:
            for open_, limit, whose in (
                (self._open[_run(run_path)], limits.streams_per_run, "to this run"),
                (self._open[_user(user_id)], limits.streams_per_user, "as this user"),
                (self._open[_ALL], limits.streams, "here"),
            ):
                if open_ >= limit:
                    raise Refusal(
                        429, "rate_limited", f"{limit} callers listen {whose} already.", streams=limit
                    ).with_headers(Retry_After="15")
            self._open.update(_counted(run_path, user_id))

    def leave(self, run_path: str, user_id: str) -> None:
        with self._lock:
            self._open.subtract(_counted(run_path, user_id))
            self._open = +self._open  # without those at zero


_ALL = "all"


def _run(run_path: str) -> str:
    return f"run {run_path}"


def _user(user_id: str) -> str:
    return f"user {user_id}"


def _counted(run_path: str, user_id: str) -> tuple[str, str, str]:
    return _ALL, _run(run_path), _user(user_id)


class EventResponse(StreamingResponse):
    """A stream that was entered, and is left however it ends, also before its first byte."""

    def __init__(self, streams: Streams, run_path: str, user_id: str, content: AsyncIterator[bytes]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, headers=headers, media_type="text/event-stream")
        self._leave = lambda: streams.leave(run_path, user_id)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


def encode(event: Event) -> bytes:
    """One event of the log as `text/event-stream` has it."""
    data: dict[str, Any] = {
        "seq": event.seq,
        "ts": event.ts,
        "type": event.type,
        "subject": event.subject,
        "from": event.source,
        "to": event.to,
        "data": dict(event.data),
    }
    text = json.dumps(data, separators=(",", ":"), sort_keys=True)
    return f"id: {event.seq}\nevent: {_NAMES.get(event.type, 'log')}\ndata: {text}\n\n".encode()


def is_over(events: Iterable[Event]) -> bool:
    """Whether the last status among these events ends the run: a later attempt may follow an end."""
    last = next((event.to for event in reversed([*events]) if event.type == "run_status"), None)
    return last in RUN_END


async def follow(
    states: StateStore, run_path: str, after: int, limits: ServiceLimits, limiter: anyio.CapacityLimiter
) -> AsyncIterator[bytes]:
    """Events with `seq > after`, waiting for more, until one ends the run. Comments keep the connection open.

    Looking for one more event costs a single request to the store; the whole tail is read at the beginning, when there
    is something, and with every comment, because a log may be folded meanwhile.
    """
    silent = limits.keep_alive_sec
    journal = states.run_log(run_path).journal
    while True:
        found: list[Event] = []
        due = silent >= limits.keep_alive_sec
        if due:
            silent = 0.0
            yield b": \n\n"
        if due or (await anyio.to_thread.run_sync(journal.taken, after + 1, limiter=limiter))[0]:
            found = await anyio.to_thread.run_sync(states.events, run_path, after, limiter=limiter)
        for event in found:
            yield encode(event)
            after, silent = event.seq, 0.0
        if is_over(found):
            return
        await anyio.sleep(limits.poll_sec)
        silent += limits.poll_sec
