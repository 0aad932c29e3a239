"""Time as state managers see it; tests bring their own."""

from __future__ import annotations

import time
from typing import Protocol

from trendflow.contracts.canonical import utc_now


class Clock(Protocol):
    def utc(self) -> str:
        """UTC as ISO 8601 with milliseconds and `Z`: what is written, and compared with what other hosts wrote.

        It may jump and hosts differ, so whatever is decided by it (ages, windows, who was first) has to bear that.
        """
        ...

    def monotonic(self) -> float:
        """Seconds since any fixed moment: what waits and intervals are measured with."""
        ...


class SystemClock:
    def utc(self) -> str:
        return utc_now()

    def monotonic(self) -> float:
        return time.monotonic()
