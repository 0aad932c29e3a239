"""Small blocks that several pages are built of; `macros.html.j2` draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """One number of the page's head; `muted` ones say that there is nothing to worry about."""

    label: str
    value: str
    detail: str
    muted: bool = False


@dataclass(frozen=True)
class Message:
    """Something the reader must know before the numbers. `kind` ∈ error, warning, skipped."""

    kind: str
    title: str
    text: str = ""
    lines: Sequence[str] = ()
