"""The daily quota of the YouTube Data API, kept in the object store so that every process spends from one budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.collector.api_errors import QUOTA
from trendflow.storage.object_store import ObjectNotFound, ObjectStore
from trendflow.storage.retry import ContentionPolicy

Clock = Callable[[], datetime]

ROOT = "snapshots/quota/youtube"
DEFAULT_UNITS = 10_000
"""What a project has by default; `videos.list` and `channels.list` cost one unit a call."""

_RESETS_IN = ZoneInfo("America/Los_Angeles")  # the platform's day begins at midnight Pacific time


def utc_clock() -> datetime:
    return datetime.now(UTC)


class QuotaBudget:
    """Units left of the day. Safe for many processes: they compare and swap one small object."""

    def __init__(self, store: ObjectStore, units: int = DEFAULT_UNITS, clock: Clock = utc_clock) -> None:
        self._store, self._units, self._clock = store, units, clock

    @property
    def remaining(self) -> int:
        spent, _ = self._read(self._key())
        return max(0, self._units - spent)

    def take(self, units: int = 1) -> None:
        """Spend units before the call they pay for; refused calls cost as much as others.

        Raises `rate_limited` (`detail.kind = "quota"`) when the day has not that many left.
        """
        self._update(lambda spent: spent + units)

    def close_day(self) -> None:
        """The platform says that nothing is left, whatever was counted here: somebody else uses the key too."""
        self._update(lambda spent: max(spent, self._units), refuse=False)

    def _update(self, change: Callable[[int], int], refuse: bool = True) -> None:
        key = self._key()
        for _ in ContentionPolicy().attempts():
            spent, etag = self._read(key)
            after = change(spent)
            if refuse and after > self._units:
                raise TrendFlowError(
                    "rate_limited",
                    f"The quota of {self._units} units a day is used up; it begins anew at midnight Pacific time.",
                    kind=QUOTA,
                )
            data = canonical_json({"spent": after})
            if self._store.put_if_match(key, data, etag) if etag else self._store.put_if_absent(key, data):
                return
        raise TrendFlowError("storage_unavailable", "The record of the API quota could not be written.")

    def _read(self, key: str) -> tuple[int, str | None]:
        try:
            data, etag = self._store.get_with_etag(key)
        except ObjectNotFound:
            return 0, None
        try:
            document: Any = json.loads(data)
            return int(document["spent"]), etag
        except (ValueError, KeyError, TypeError) as exc:
            raise TrendFlowError("artifact_validation_failed", "The record of the API quota is not readable.") from exc

    def _key(self) -> str:
        return f"{ROOT}/{self._clock().astimezone(_RESETS_IN).date().isoformat()}.json"
