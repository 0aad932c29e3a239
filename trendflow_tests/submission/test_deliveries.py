"""Deliveries are counted, and too many end in the list of dead letters."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.object_store import ObjectStore
from trendflow.submission.admission import SubmissionLimits
from trendflow.submission.deliveries import DeadLettered, Deliveries
from trendflow_tests.state.runs import SCHEMAS, FixedClock, memory
from trendflow_tests.submission.desks import draft, video_id


def deliveries(store: ObjectStore, limits: SubmissionLimits | None = None) -> Deliveries:
    return Deliveries(store, SCHEMAS, FixedClock(), limits=limits)


def test_the_fourth_delivery_is_a_dead_letter() -> None:
    store, poison, other = memory(), draft("a", 0, 1), draft("a", 1, 2)
    assert [deliveries(store).begin(poison, "worker-1") for _ in range(3)] == [1, 2, 3]
    assert list(deliveries(store).dead_letters()) == []
    for _ in range(2):
        with pytest.raises(DeadLettered) as caught:
            deliveries(store).begin(poison, "worker-2")
        assert (caught.value.error_code, caught.value.error_class) == ("internal_error", "permanent")
    assert deliveries(store).begin(other, "worker-1") == 1
    assert (deliveries(store).count(poison.run_path), deliveries(store).count(other.run_path)) == (3, 1)
    (letter,) = deliveries(store).dead_letters()
    assert (letter.message, letter.deliveries, letter.error_code) == (poison, 3, "internal_error")
    assert letter.dead_at == "2026-01-02T00:00:00.000Z"


def test_a_dead_letter_may_be_revived() -> None:
    store, message = memory(), draft("a", 0, 1)
    once = SubmissionLimits(max_deliveries=1)
    deliveries(store, once).begin(message, "worker-1")
    with pytest.raises(DeadLettered):
        deliveries(store, once).begin(message, "worker-1")
    assert deliveries(store, once).revive(message.run_path)
    assert not deliveries(store, once).revive(message.run_path)
    assert deliveries(store, once).begin(message, "worker-1") == 1
    with pytest.raises(DeadLettered):
        deliveries(store, once).begin(message, "worker-1")
    assert deliveries(store).forget("youtube", video_id(1)) == 1
    assert list(deliveries(store).dead_letters()) == []


def test_every_delivery_has_a_number_of_its_own(tmp_path: Path) -> None:
    message = draft("a", 0, 1)

    def begin(worker: int) -> int:
        try:
            return deliveries(ObjectStore.open(tmp_path.as_uri())).begin(message, f"worker-{worker}")
        except DeadLettered:
            return 0

    with ThreadPoolExecutor(8) as pool:
        numbers = Counter(pool.map(begin, range(8)))
    assert numbers == Counter({0: 5, 1: 1, 2: 1, 3: 1})


def test_a_damaged_list_is_told() -> None:
    store, message = memory(), draft("a", 0, 1)
    for data in (b"{", b"{}"):
        store.put(f"submissions/_dead_letters/{message.run_path}.json", data)
        with pytest.raises(TrendFlowError) as caught:
            list(deliveries(store).dead_letters())
        assert caught.value.error_code == "artifact_validation_failed"
    with pytest.raises(TrendFlowError):
        deliveries(store).revive("../../etc")
