"""A small run and everything that tests of its state need: a clock that stands still, stores that break on demand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.schema import SchemaRegistry
from trendflow.state.events import Event
from trendflow.state.run_manager import Planned, RunManager
from trendflow.state.store import StateStore
from trendflow.storage.object_store import ObjectStore

SCHEMAS = SchemaRegistry.load()
IDENTITY = RunIdentity("upload", "my-video", "run-1", "a" * 64, "s1", "0.1.0")
PATH = IDENTITY.run_path
FOLDER = f"state/{PATH}"
PLAN = (
    Planned("segmenter", "segmenter", True),
    Planned("core_clip", "visual", True, ("segmenter",)),
    Planned("cut_detection", "visual", False, ("segmenter", "core_clip")),
    Planned("loudness_extractor", "audio", False, ("segmenter",)),
)
COMPONENTS = tuple(planned.name for planned in PLAN)
SLOW = TrendFlowError("timeout", "Too slow.")


class FixedClock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def utc(self) -> str:
        moment = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(seconds=self.seconds)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def monotonic(self) -> float:
        return self.seconds


class Crash(Exception):
    """The process died."""


class BreakingStore(ObjectStore):
    """A store of which the write number `at` (from 0) fails: `before` it happens, or after, when its answer is lost."""

    def __init__(self, store: ObjectStore, at: int, failure: BaseException, *, before: bool) -> None:
        super().__init__(store._backend)
        self.writes = 0
        self._at, self._failure, self._before = at, failure, before

    def put(self, key: str, data: Any) -> None:
        with self._breaking():
            super().put(key, data)

    def put_if_absent(self, key: str, data: Any) -> bool:
        with self._breaking():
            return super().put_if_absent(key, data)

    def put_if_match(self, key: str, data: Any, etag: str) -> bool:
        with self._breaking():
            return super().put_if_match(key, data, etag)

    def delete(self, key: str) -> bool:
        with self._breaking():
            return super().delete(key)

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        broken = self.writes == self._at
        self.writes += 1
        if broken and self._before:
            raise self._failure
        yield
        if broken:
            raise self._failure


def memory() -> ObjectStore:
    return ObjectStore.open("memory://")


def states_in(store: ObjectStore, clock: FixedClock | None = None) -> StateStore:
    return StateStore(store, SCHEMAS, clock or FixedClock())


def accepted(states: StateStore) -> RunManager:
    """A run that is pending."""
    return RunManager.create(states, IDENTITY, "starter", PLAN, holder="api")


def opened(states: StateStore, holder: str = "worker-1") -> RunManager:
    manager = RunManager.open(states, PATH, holder=holder)
    assert manager is not None
    return manager


def begun(states: StateStore) -> RunManager:
    """A run that is running, with nothing started."""
    manager = accepted(states)
    manager.begin(worker="worker-1", device=None, resolved_models={"image_encoder": {"entry": "net@1"}})
    return manager


def finished(manager: RunManager, name: str, status: Any = "success") -> None:
    """Compute one component."""
    manager.component_started(name, owner="worker-1")
    manager.component_finished(name, status, [f"{name}/{name}.npz"])


def saved(store: ObjectStore, name: str) -> dict[str, Any]:
    return json.loads(store.get(f"{FOLDER}/{name}.json"))


def numbers(store: ObjectStore) -> list[int]:
    """Numbers of the event objects of the run, as the store lists them."""
    return [int(info.key[-17:-5]) for info in store.list(f"{FOLDER}/events")]


def texts(events: list[Event], pick: Callable[[Event], bool] = lambda event: True) -> list[str]:
    """Events in short: `type subject to`."""
    return [" ".join(filter(None, (event.type, event.subject, event.to))) for event in events if pick(event)]
