"""How many runs a user may begin: sliding windows of an hour, counted in this process."""

from __future__ import annotations

import math
import threading
from collections import deque

from trendflow.service.failures import Refusal
from trendflow.service.users import Tier, User
from trendflow.state.clock import Clock

WINDOW_SEC = 3600.0
PER_HOUR: dict[Tier, int] = {"free": 5, "premium": 50, "internal": 100}
"""100 is the most that anybody may begin."""


class RateLimits:
    """Safe for any number of threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._begun: dict[str, deque[float]] = {}

    def take(self, user: User) -> float:
        """Count one run; returns what `give_back` takes. Raises a 429 with the time until the next one is free."""
        allowed = PER_HOUR[user.tier]
        with self._lock:
            now = self._clock.monotonic()
            begun = self._begun.setdefault(user.user_id, deque())
            while begun and begun[0] <= now - WINDOW_SEC:
                begun.popleft()
            if len(begun) < allowed:
                begun.append(now)
                return now
            wait = max(1, math.ceil(begun[0] + WINDOW_SEC - now))
        raise Refusal(
            429, "rate_limited", f"{allowed} runs an hour were begun already.", retry_after_sec=wait, per_hour=allowed
        ).with_headers(Retry_After=str(wait))

    def give_back(self, user: User, taken: float) -> None:
        """The run was not begun after all."""
        with self._lock:
            begun = self._begun[user.user_id]
            if taken in begun:
                begun.remove(taken)
