"""One thing that `trendflow doctor` examines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Examination:
    """`run` returns what it found, in a few words, or raises; then `advice` is one sentence on what to do.

    What is not `needed` to process videos here is a warning.
    """

    name: str
    run: Callable[[], str]
    advice: str
    needed: bool = True
