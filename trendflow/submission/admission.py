"""When nothing more is accepted: the queue is long, or the disk is nearly full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trendflow.contracts.errors import TrendFlowError

GB = 10**9


@dataclass(frozen=True)
class SubmissionLimits:
    """Limits of accepting and handing over; they change no result."""

    refuse_above: int = 100
    """Queue length above which a submission is refused."""
    capacity: int = 10_000
    """Runs that may wait at all."""
    min_free_gb: float = 20.0
    retry_after_sec: int = 30
    window_sec: float = 10.0
    """Buffer window of level 1."""
    cache_ttl_days: float = 3.0


class NotNow(TrendFlowError):
    """The deployment takes nothing at the moment (transient); `detail["retry_after_sec"]` says when to ask again."""

    @property
    def retry_after_sec(self) -> int:
        return int(self.detail["retry_after_sec"])


class Admission:
    """Whether the deployment may take more. `free_bytes` is the smaller one of scratch and store."""

    def __init__(self, limits: SubmissionLimits, free_bytes: Callable[[], int]) -> None:
        self._limits, self._free_bytes = limits, free_bytes

    @property
    def has_space(self) -> bool:
        """Whether a new run may begin; running ones finish in any case."""
        return self._free_bytes() >= self._limits.min_free_gb * GB

    def require(self, waiting: int, new: int) -> None:
        """Raise `NotNow` unless `new` runs may join the `waiting` ones.

        The length is compared before the new ones are counted in, so a long list is accepted while the queue is short.
        """
        limits = self._limits
        if waiting > limits.refuse_above:
            raise self._not_now("rate_limited", "Too many runs wait already.", waiting=waiting)
        if not self.has_space:
            raise self._not_now("storage_unavailable", "Too little disk space is free for new runs.")
        if waiting + new > limits.capacity:
            if new > limits.capacity:
                raise TrendFlowError(
                    "input_constraint_violated",
                    f"A submission may hold at most {limits.capacity} new runs.",
                    new=new,
                    capacity=limits.capacity,
                )
            raise self._not_now("rate_limited", "The queue has no place for so many runs.", waiting=waiting, new=new)

    def _not_now(self, code: str, message: str, **detail: int) -> NotNow:
        return NotNow(code, message, retry_after_sec=self._limits.retry_after_sec, **detail)
