"""Answers that are bytes: with an entity tag, conditional, whole or by range."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from trendflow.service.byte_ranges import ByteRange, Unsatisfiable, matches, parse_range
from trendflow.service.failures import Refusal

CHUNK_BYTES = 1 << 20
READ = Callable[[int, int], bytes]
"""`length` bytes from `start` on."""


def quoted(digest: str) -> str:
    """An entity tag as headers hold it."""
    return f'"{digest}"'


def serve(request: Request, read: READ, *, size: int, etag: str, media_type: str) -> Response:
    """The answer to GET or HEAD of `size` bytes; `etag` is quoted. Raises a 416 for a range behind the end."""
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=_caching(etag))
    headers = {**_caching(etag), "Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff"}
    part = _part(request, size, etag)
    whole = ByteRange(0, size)
    chosen = part or whole
    if part is not None:
        headers["Content-Range"] = part.content_range(size)
    headers["Content-Length"] = str(chosen.length)
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    return StreamingResponse(_chunks(read, chosen), status, headers, media_type)


def serve_bytes(request: Request, data: bytes, *, etag: str, media_type: str) -> Response:
    """As `serve`, of bytes that are in memory."""
    return serve(
        request, lambda start, length: data[start : start + length], size=len(data), etag=etag, media_type=media_type
    )


def _caching(etag: str) -> Mapping[str, str]:
    # Answers belong to the token that asked, and are asked for anew each time: the tag makes that cheap.
    return {"ETag": etag, "Cache-Control": "private, no-cache"}


def _part(request: Request, size: int, etag: str) -> ByteRange | None:
    condition = request.headers.get("if-range")
    if condition is not None and condition != etag:
        return None  # the caller holds a part of another version
    try:
        return parse_range(request.headers.get("range"), size)
    except Unsatisfiable:
        raise Refusal(
            416, "input_constraint_violated", "The range lies behind the end of the file.", size=size
        ).with_headers(Content_Range=f"bytes */{size}") from None


def _chunks(read: READ, part: ByteRange) -> Iterator[bytes]:
    end = part.start + part.length
    for start in range(part.start, end, CHUNK_BYTES):
        yield read(start, min(CHUNK_BYTES, end - start))
