"""The daily budget: shared by processes, new at midnight Pacific time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.collector.quota import QuotaBudget
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.dataset.collector.conftest import Clock


def test_the_budget_ends_exactly(store: ObjectStore) -> None:
    quota = QuotaBudget(store, 3, Clock())
    for left in (2, 1, 0):
        quota.take()
        assert quota.remaining == left
    with pytest.raises(TrendFlowError) as caught:
        quota.take()
    assert (caught.value.error_code, caught.value.detail["kind"]) == ("rate_limited", "quota")
    assert quota.remaining == 0


def test_more_than_is_left_is_not_taken(store: ObjectStore) -> None:
    quota = QuotaBudget(store, 3, Clock())
    with pytest.raises(TrendFlowError):
        quota.take(4)
    assert quota.remaining == 3


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (datetime(2026, 1, 11, 7, 59, 59, tzinfo=UTC), datetime(2026, 1, 11, 8, tzinfo=UTC)),  # winter: UTC−8
        (datetime(2026, 7, 11, 6, 59, 59, tzinfo=UTC), datetime(2026, 7, 11, 7, tzinfo=UTC)),  # summer: UTC−7
    ],
)
def test_the_day_begins_at_midnight_pacific_time(store: ObjectStore, before: datetime, after: datetime) -> None:
    clock = Clock(before)
    quota = QuotaBudget(store, 1, clock)
    quota.take()
    assert quota.remaining == 0
    clock.now = after
    assert quota.remaining == 1


def test_many_writers_spend_from_one_budget(store: ObjectStore) -> None:
    def spend(_: int) -> int:
        try:
            QuotaBudget(store, 25, Clock()).take()
        except TrendFlowError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as writers:
        assert sum(writers.map(spend, range(40))) == 25


def test_a_damaged_record_is_no_fresh_budget(store: ObjectStore) -> None:
    quota = QuotaBudget(store, 5, Clock())
    quota.take()
    (key,) = [info.key for info in store.list("snapshots")]
    store.put(key, b"{}")
    with pytest.raises(TrendFlowError) as caught:
        quota.take()
    assert caught.value.error_code == "artifact_validation_failed"
