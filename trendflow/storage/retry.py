"""Waiting rules of the storage layer."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from trendflow.contracts.errors import TrendFlowError

_RETRIED = "retried"


def exhausted(error: TrendFlowError) -> TrendFlowError:
    """Mark an error whose cause was already tried again as often as it may be.

    Attempts multiply when two layers repeat: a caller that repeats work leaves errors with this mark alone.
    """
    error.detail[_RETRIED] = True
    return error


def is_exhausted(error: TrendFlowError) -> bool:
    return bool(error.detail.get(_RETRIED))


@dataclass(frozen=True)
class RetryPolicy:
    """Waits in seconds before each further try of a transient failure, each lengthened by up to `jitter` of itself."""

    waits: tuple[float, ...] = (1.0, 2.0, 4.0)
    jitter: float = 0.25

    def attempts(self) -> Iterator[bool]:
        """Yield once per try, True for the last one, sleeping in between."""
        for wait in self.waits:
            yield False
            time.sleep(wait * (1 + random.uniform(0, self.jitter)))
        yield True


# Somebody waits for the first answer of a store, and what fails then is mostly a wrong setting.
OPENING = RetryPolicy(waits=(0.5, 1.0))


@dataclass(frozen=True)
class ContentionPolicy:
    """Waits in seconds of a compare-and-swap loop that lost: uniform in `[low, high]`, for at most `limit` in all."""

    low: float = 0.010
    high: float = 0.200
    limit: float = 30.0

    def attempts(self) -> Iterator[None]:
        """Yield once per try, sleeping in between, until the limit is used up."""
        deadline = time.monotonic() + self.limit
        while True:
            yield
            wait = random.uniform(self.low, self.high)
            if time.monotonic() + wait > deadline:
                return
            time.sleep(wait)
