"""A small deployment without workers: a desk that accepts and a level 1 that schedules, on one store."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.manifest import new_manifest, update_run
from trendflow.state.global_manager import GlobalManager
from trendflow.state.store import StateStore
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow.storage.run_index import RunIndex
from trendflow.submission.admission import GB, Admission, SubmissionLimits
from trendflow.submission.desk import SubmissionDesk
from trendflow.submission.inbox import Inbox
from trendflow.submission.items import minted_run_id
from trendflow.submission.level1 import Level1Queue
from trendflow.submission.message import Message, Priority, VideoSource
from trendflow_tests.state.runs import SCHEMAS, BreakingStore, FixedClock, memory, states_in

DAY = "20260102"  # the day of `FixedClock`
USER = "user-1"
HASH = "a" * 64


class BreakingForThreads(BreakingStore):
    """As its parent, for writers in several threads: each write has a number of its own."""

    def __init__(self, store: ObjectStore, at: int, failure: BaseException, *, before: bool) -> None:
        super().__init__(store, at, failure, before=before)
        self._turn = Lock()

    def put_if_absent(self, key: str, data: Any) -> bool:
        with self._turn:
            return super().put_if_absent(key, data)


@dataclass
class Deployment:
    """`free_gb` is what the disk has; tests change it."""

    store: ObjectStore = field(default_factory=memory)
    clock: FixedClock = field(default_factory=FixedClock)
    limits: SubmissionLimits = field(default_factory=SubmissionLimits)
    deleted: Container[tuple[str, str]] = ()
    free_gb: float = 100.0

    def __post_init__(self) -> None:
        self.inbox = Inbox(self.store, SCHEMAS, self.clock)
        self.admission = Admission(self.limits, lambda: int(self.free_gb * GB))
        self.desk = SubmissionDesk(
            self.store, self.states, self.inbox, self.admission, limits=self.limits, deleted=lambda: self.deleted
        )

    @property
    def states(self) -> StateStore:
        return states_in(self.store, self.clock)

    def level1(self) -> tuple[Level1Queue, GlobalManager]:
        """As a process that starts."""
        manager = GlobalManager.open(self.states, holder="daemon")
        inbox = Inbox(self.store, SCHEMAS, self.clock)
        return Level1Queue(self.store, inbox, manager, self.clock, self.admission, limits=self.limits), manager

    def succeed(self, message: Message, seconds: float = 0.0) -> None:
        """The run of a message ends well, `seconds` after the clock's beginning."""
        clock = FixedClock()
        clock.seconds = seconds
        results = ResultStore(self.store)
        results.create_manifest(new_manifest(message.identity, clock.utc(), "starter", {"type": "youtube_url"}))
        results.update_manifest(message.run_path, lambda found: update_run(found, finished_at=clock.utc()))
        RunIndex(self.store).record(message.identity, clock.utc())


def submission_id(name: str) -> str:
    return f"{DAY}-{name}"


def video_id(number: int) -> str:
    """An id in YouTube's shape."""
    return f"video-{number:05d}"


def draft(
    name: str, place: int, video: int, *, run_id: str | None = None, priority: Priority = "normal", **more: Any
) -> Message:
    """The item number `place` of the submission `name`."""
    identity = RunIdentity(
        "youtube", video_id(video), run_id or minted_run_id(submission_id(name), place), HASH, "s1", "0.1.0"
    )
    source = VideoSource("youtube_url", f"https://www.youtube.com/watch?v={video_id(video)}")
    return Message(identity, source, USER, profile="starter", priority=priority, **more)
