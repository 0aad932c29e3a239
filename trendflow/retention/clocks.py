"""Whether the clock of this machine may decide what is old."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.probe import PROBE_FOLDER

MAX_SKEW = timedelta(hours=1)
"""Less than any period that something is kept for."""


def _now() -> datetime:
    return datetime.now(UTC)


def require_same_clock(store: ObjectStore) -> None:
    """Compare the time of this machine with that of the store, which is the one that its objects are dated by.

    On a machine whose clock is days ahead everything would be old, runs at work among it. Raises `config_invalid`.
    """
    key = f"{PROBE_FOLDER}/{uuid.uuid4().hex}/clock"
    store.put(key, b"")
    try:
        skew = _now() - store.head(key).last_modified
    finally:
        store.delete(key)
    if abs(skew) > MAX_SKEW:
        hours = abs(skew).total_seconds() / 3600
        raise TrendFlowError(
            "config_invalid",
            f"The clock of this machine is {hours:.1f} hours {'ahead of' if skew > timedelta() else 'behind'} that of "
            "the object store; set it right, for nothing is removed by its age until then.",
        )
