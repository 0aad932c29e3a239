"""Byte ranges and entity tags of RFC 9110, as far as whole files need them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes=(?P<first>[0-9]{0,18})-(?P<last>[0-9]{0,18})\Z")


@dataclass(frozen=True)
class ByteRange:
    """`length` bytes from `start` on."""

    start: int
    length: int

    def content_range(self, size: int) -> str:
        return f"bytes {self.start}-{self.start + self.length - 1}/{size}"


class Unsatisfiable(ValueError):
    """The range begins behind the end."""


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The range that a `Range` header asks for, None for the whole file.

    A header of another form, and one of several ranges, is ignored, which RFC 9110 (14.2) allows. Raises
    `Unsatisfiable` for a range without a byte of the file.
    """
    match = _ONE_RANGE.match(header.replace(" ", "")) if header else None
    if match is None or not (match["first"] or match["last"]):
        return None
    if not match["first"]:
        length = min(int(match["last"]), size)
        if length == 0:
            raise Unsatisfiable
        return ByteRange(size - length, length)
    first = int(match["first"])
    last = int(match["last"]) if match["last"] else size - 1
    if match["last"] and last < first:
        return None  # an invalid range, which is ignored
    if first >= size:
        raise Unsatisfiable
    return ByteRange(first, min(last, size - 1) - first + 1)


def matches(header: str | None, etag: str) -> bool:
    """Whether an `If-None-Match` header names the tag `etag` (quoted), or any. Compared weakly (RFC 9110, 13.1.2)."""
    if header is None:
        return False
    names = [name.strip().removeprefix("W/") for name in header.split(",")]
    return "*" in names or etag in names
