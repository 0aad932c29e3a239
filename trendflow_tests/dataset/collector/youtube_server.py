"""A real HTTP server on loopback that answers like the YouTube Data API v3; its videos are SYNTHETIC."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "SYNTHETIC-key-0123456789"
PUBLISHED = "2026-01-09T18:30:00Z"

Answer = tuple[int, Any, dict[str, str]]


@dataclass
class Request:
    path: str
    query: dict[str, str]
    raw: str


@dataclass
class Server:
    """What the server knows and how it misbehaves: `failures` are answered first, one per request.

    A failure `None` closes the connection without an answer, `"silent"` keeps it open until the client gives up.
    """

    url: str = ""
    videos: dict[str, dict[str, Any]] = field(default_factory=dict)
    channels: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: list[Answer | str | None] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


def error(status: int, reason: str, detail: str | None = None, **headers: str) -> Answer:
    """An error in Google's form."""
    body: dict[str, Any] = {
        "code": status,
        "message": f"A message with {KEY}",
        "errors": [{"message": "A message", "domain": "youtube.quota", "reason": reason}],
        "status": "FAILED",
    }
    if detail is not None:
        body["details"] = [
            {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": detail, "domain": "googleapis.com"},
        ]
    return status, {"error": body}, {name.replace("_", "-"): value for name, value in headers.items()}


def video(video_id: str, views: int = 1000, channel: str = "UC_synthetic_1", **statistics: Any) -> dict[str, Any]:
    """A video resource. A statistic given as None is left out, as the API does with hidden ones."""
    counted = {"viewCount": str(views), "likeCount": "50", "favoriteCount": "0", "commentCount": "7", **statistics}
    return {
        "kind": "youtube#video",
        "id": video_id,
        "snippet": {
            "publishedAt": PUBLISHED,
            "channelId": channel,
            "title": "Title of a SYNTHETIC video",
            "description": "A description",
            "thumbnails": {"default": {}, "medium": {}, "high": {}},
            "channelTitle": "A SYNTHETIC channel",
            "tags": ["one", "two"],
            "categoryId": "28",
            "liveBroadcastContent": "none",
            "defaultAudioLanguage": "en",
        },
        "contentDetails": {"duration": "PT1M30S", "definition": "hd", "caption": "true"},
        "status": {"privacyStatus": "public", "madeForKids": False},
        "statistics": {name: value for name, value in counted.items() if value is not None},
    }


def channel(channel_id: str, hidden: bool = False) -> dict[str, Any]:
    return {
        "kind": "youtube#channel",
        "id": channel_id,
        "statistics": {
            "viewCount": "123456",
            "subscriberCount": "0" if hidden else "900",
            "hiddenSubscriberCount": hidden,
            "videoCount": "42",
        },
    }


def _refusal(request: Request, key: str | None) -> Answer | None:
    if key != KEY:
        return error(400, "badRequest", "API_KEY_INVALID")
    ids = request.query.get("id", "").split(",")
    if len(ids) > 50 or ids == [""]:
        return error(400, "invalidFilters")
    if request.path == "/youtube/v3/videos" and "maxResults" in request.query:
        return error(400, "incompatibleParameters")
    return None


def _answer(server: Server, request: Request) -> Answer:
    resources = {"/youtube/v3/videos": server.videos, "/youtube/v3/channels": server.channels}
    if request.path not in resources:
        return error(404, "notFound")
    known = resources[request.path]
    parts = {"kind", "id", *request.query["part"].split(",")}
    found = [known[name] for name in dict.fromkeys(request.query["id"].split(",")) if name in known]
    body: dict[str, Any] = {"kind": "youtube#listResponse", "pageInfo": {"totalResults": len(found)}}
    if request.path.endswith("channels"):  # answers in pages, of five unless asked otherwise
        start, size = int(request.query.get("pageToken", 0)), int(request.query.get("maxResults", 5))
        if start + size < len(found):
            body["nextPageToken"] = str(start + size)
        found = found[start : start + size]
    body["items"] = [{name: value for name, value in item.items() if name in parts} for item in found]
    return 200, body, {}


@contextmanager
def youtube_server() -> Iterator[Server]:
    """A server that runs inside the block."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: ",".join(values) for name, values in parse_qs(url.query).items()}
            request = Request(url.path, query, self.path)
            state.requests.append(request)
            planned: Answer | str | None = None
            if state.failures:
                planned = state.failures.pop(0)
                if planned == "silent":
                    state.released.wait()
                if not isinstance(planned, tuple):
                    self.close_connection = True
                    return
            key = self.headers.get("X-Goog-Api-Key") or query.get("key")
            status, body, headers = planned or _refusal(request, key) or _answer(state, request)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        state.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield state
        finally:
            state.released.set()
            httpd.shutdown()
            thread.join()
