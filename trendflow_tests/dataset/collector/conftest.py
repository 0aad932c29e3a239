"""A server, a store, a clock that a test moves, and a client that does not wait."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from trendflow.dataset.collector.quota import QuotaBudget
from trendflow.dataset.collector.snapshot_store import SnapshotStore
from trendflow.dataset.collector.youtube import YouTubeClient
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.dataset.collector.youtube_server import KEY, Server, youtube_server


@dataclass
class Clock:
    now: datetime = datetime(2026, 1, 10, 12, 0, 7, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **time: float) -> None:
        self.now += timedelta(**time)


@dataclass
class Desk:
    """Everything one collector works with. `waits`: the seconds the client would have slept."""

    server: Server
    store: ObjectStore
    clock: Clock = field(default_factory=Clock)
    waits: list[float] = field(default_factory=list)

    def quota(self, units: int = 1000) -> QuotaBudget:
        return QuotaBudget(self.store, units, self.clock)

    def client(self, units: int = 1000, key: str = KEY, timeout_sec: float = 10.0) -> YouTubeClient:
        return YouTubeClient(
            key, self.quota(units), endpoint=self.server.url, sleep=self.waits.append, timeout_sec=timeout_sec
        )

    @property
    def snapshots(self) -> SnapshotStore:
        return SnapshotStore(self.store)


@pytest.fixture
def server() -> Iterator[Server]:
    with youtube_server() as running:
        yield running


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore.open("memory://")


@pytest.fixture
def desk(server: Server, store: ObjectStore) -> Desk:
    return Desk(server, store)
