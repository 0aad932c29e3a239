"""What stands before every path: the token, the size of the body, the log line, and the answer to a bug."""

from __future__ import annotations

import logging
import time

import anyio
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trendflow.service.failures import Refusal, answer_of, unexpected
from trendflow.service.users import Users

log = logging.getLogger(__name__)

OPEN_PATH = "/health/live"
"""The one path without a token."""
MAX_TOKEN = 512
BODY_SEC = 30.0


class Gate:
    """ASGI middleware. Request bodies are read here, up to `max_body_bytes`, so that no path sees a longer one."""

    def __init__(self, app: ASGIApp, *, users: Users, max_body_bytes: int) -> None:
        self._app, self._users, self._max_body = app, users, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def watching(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            answer = self._refused(scope) or await self._read(receive)
            if isinstance(answer, Response):
                await answer(scope, receive, watching)
            else:
                await self._app(scope, _replayed(answer, receive), watching)
        # Whatever breaks is a bug, and its text may quote the request: the server must neither log nor send it.
        except Exception as error:
            told = unexpected(error)
            if status == 0:
                await told(scope, receive, watching)
            else:
                raise ConnectionAbortedError from None  # the rest of a broken answer must not look like its end
        finally:
            self._note(scope, status, time.monotonic() - began)

    def _refused(self, scope: Scope) -> Response | None:
        headers = {bytes(name).lower(): bytes(value) for name, value in scope["headers"]}
        if scope["path"] != OPEN_PATH:
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            is_bearer = scheme.lower() == b"bearer" and 0 < len(token) <= MAX_TOKEN
            user = self._users.of_token(token.strip()) if is_bearer else None
            if user is None:
                return answer_of(
                    Refusal(
                        401, "input_constraint_violated", "A valid token is needed: Authorization: Bearer …."
                    ).with_headers(WWW_Authenticate="Bearer")
                )
            scope.setdefault("state", {})["user"] = user
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._max_body:
            return _too_long(self._max_body)
        return None

    async def _read(self, receive: Receive) -> bytes | Response:
        """The body, or the refusal of one that is longer than allowed (the header may lie or be absent) or too slow."""
        body, more = bytearray(), True
        with anyio.move_on_after(BODY_SEC):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":  # what came so far may look whole
                    return answer_of(Refusal(400, "input_constraint_violated", "The request was cut short."))
                body += message.get("body", b"")
                if len(body) > self._max_body:
                    return _too_long(self._max_body)
                more = message.get("more_body", False)
            return bytes(body)
        return answer_of(
            Refusal(408, "timeout", "The request took too long to arrive.").with_headers(Connection="close")
        )

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """One line a request, without query, body or anything else that a caller chose but the path's own form."""
        route = scope.get("route")
        user = scope.get("state", {}).get("user")
        method = scope["method"] if scope["method"].isalpha() else "?"
        path = getattr(route, "path", "-")
        log.info(
            "%s %s %d",
            method,
            path,
            status,
            extra={
                "method": method,
                "path": path,
                "status": status,
                "duration_ms": round(seconds * 1000),
                "user": user.user_id if user else None,
            },
        )


def _too_long(limit: int) -> Response:
    refusal = Refusal(413, "input_constraint_violated", f"A request may hold at most {limit} bytes.", limit=limit)
    return answer_of(refusal.with_headers(Connection="close"))


def _replayed(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()  # the caller going away
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
