"""Every place of a store that knows of a video: how much lies there, and how it is removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Protocol

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import validate_video_id
from trendflow.contracts.schema import SchemaRegistry
from trendflow.dataset.collector.snapshot_store import PLATFORM, SnapshotStore
from trendflow.retention.shared_rules import indexed_run
from trendflow.retention.tables import rebuild_tables, remove_publications, rows_of
from trendflow.retention.video_rule import FRAMES, RENDERED, RESULTS, RUN_INDEX, STATE
from trendflow.state.clock import Clock
from trendflow.state.layout import GLOBAL_FOLDER
from trendflow.state.retention import forget_video
from trendflow.state.store import StateStore
from trendflow.state.transitions import RUN_END
from trendflow.storage.artifact_index import ROOT as ARTIFACT_INDEX
from trendflow.storage.object_store import ObjectInfo, ObjectNotFound, ObjectStore
from trendflow.storage.result_store import MANIFEST_NAME
from trendflow.submission.inbox import Inbox

_READERS = 8
_HOLDER = "erasure"
_FOLDERS = {"artifacts": RESULTS, "frames": FRAMES, "render_cache": RENDERED, "run_index": RUN_INDEX, "state": STATE}
_CORPUS_PAGES = f"{RENDERED}/_corpus"


class StillAtWork(TrendFlowError):
    """Something is still written about a video that is to be deleted (`timeout`): the deletion is not complete."""

    @classmethod
    def on_a_video(cls) -> StillAtWork:
        return cls(
            "timeout",
            "A run of the video is still at work; repeat the deletion, or let the next `trendflow gc` finish it.",
        )


class History(Protocol):
    """What keeps a history of runs outside the store, by the ids of their videos; both may be repeated."""

    def count(self, platform_id: str, video_id: str) -> int:
        """How many partitions and runs of the video it knows."""
        ...

    def forget(self, platform_id: str, video_id: str) -> None:
        """Raises `StillAtWork` when it has to keep a run that has not ended."""
        ...


class Executions(Protocol):
    """What executes runs of videos."""

    def stop(self, platform_id: str, video_id: str) -> int:
        """Cancel what waits and ask what works to stop; returns how many have not stopped. To be repeated until 0."""
        ...


class NoExecutions:
    """Nothing executes runs."""

    def stop(self, platform_id: str, video_id: str) -> int:
        return 0


class NoHistory:
    """There is none."""

    def count(self, platform_id: str, video_id: str) -> int:
        return 0

    def forget(self, platform_id: str, video_id: str) -> None:
        return None


class Histories:
    """Several of them as one."""

    def __init__(self, *parts: History) -> None:
        self._parts = parts

    def count(self, platform_id: str, video_id: str) -> int:
        return sum(part.count(platform_id, video_id) for part in self._parts)

    def forget(self, platform_id: str, video_id: str) -> None:
        for part in self._parts:
            part.forget(platform_id, video_id)


@dataclass(frozen=True)
class Inventory:
    """`counts`: by class, without zeros. `size`: bytes of the objects among them."""

    counts: dict[str, int]
    size: int
    live_runs: int


class Traces:
    """One video in one store. Raises `input_constraint_violated` for an id that is none."""

    def __init__(
        self,
        store: ObjectStore,
        schemas: SchemaRegistry,
        platform_id: str,
        video_id: str,
        clock: Clock,
        history: History,
        executions: Executions,
    ) -> None:
        validate_video_id(platform_id, video_id)
        self._store, self._history, self._executions = store, history, executions
        self._platform_id, self._video_id = platform_id, video_id
        self._folder = f"{platform_id}/{video_id}"
        self._inbox = Inbox(store, schemas, clock)
        self._states = StateStore(store, schemas, clock)
        self._snapshots = SnapshotStore(store)

    def cancel_runs(self) -> None:
        """Ask the runs that have not ended to stop, by their state; `stop` goes on asking whoever executes them."""
        for run_path in self._live_runs():
            self._states.request_cancel(run_path)

    def stop(self) -> bool:
        """Whether nobody executes a run of the video any more; whoever does is asked to stop."""
        return self._executions.stop(self._platform_id, self._video_id) == 0

    def inventory(self) -> Inventory:
        """What there is. Changes nothing."""
        objects = {name: list(self._store.list(f"{root}/{self._folder}")) for name, root in _FOLDERS.items()}
        objects["artifact_index"] = self._index_entries()
        objects["reports"] = list(self._naming(_CORPUS_PAGES))
        counts = {name: len(found) for name, found in objects.items()}
        counts["submissions"] = len(self._inbox.run_ids_of(self._platform_id, self._video_id))
        counts["collected_snapshots"] = len(self._collected())
        counts["deployment_state"] = sum(1 for _ in self._naming(GLOBAL_FOLDER))
        counts["history"] = self._history.count(self._platform_id, self._video_id)
        rows = rows_of(self._store, (self._platform_id, self._video_id))
        counts |= {f"rows_of_{name}": count for name, count in rows.items()}
        return Inventory(
            {name: count for name, count in sorted(counts.items()) if count},
            sum(info.size for found in objects.values() for info in found),
            len(list(self._live_runs())),
        )

    def remove(self) -> None:
        """Remove everything; may stop anywhere and be repeated.

        What could start a run goes first, manifests before what they name, and level 1 and the history of runs last:
        until then they say what the video's runs were.
        """
        for step in self._steps:
            step()

    def written_since(self) -> bool:
        """After a removal: whether somebody who was at work wrote about the video once more."""
        written = any(next(iter(self._store.list(f"{root}/{self._folder}")), None) for root in _FOLDERS.values())
        return written or self._history.count(self._platform_id, self._video_id) > 0

    @cached_property
    def _steps(self) -> tuple[Callable[[], object], ...]:
        return (
            lambda: self._inbox.forget(self._platform_id, self._video_id),
            lambda: self._remove_prefix(RUN_INDEX),
            lambda: [self._store.delete(info.key) for info in self._index_entries()],
            self._remove_manifests,
            *(partial(self._remove_prefix, root) for root in (RESULTS, FRAMES, RENDERED, STATE)),
            lambda: [self._store.delete(key) for key in self._collected()],
            lambda: rebuild_tables(self._store, {(self._platform_id, self._video_id)}),
            lambda: remove_publications(self._store, (self._platform_id, self._video_id)),
            lambda: [self._store.delete(info.key) for info in list(self._naming(_CORPUS_PAGES))],
            self._leave_level1,
            lambda: self._history.forget(self._platform_id, self._video_id),
        )

    def _live_runs(self) -> Iterator[str]:
        for run_id in self._store.folders(f"{STATE}/{self._folder}"):
            try:
                view = self._states.read_run(f"{self._folder}/{run_id}")
            except TrendFlowError as error:
                if error.error_class == "transient":
                    raise
                continue  # a damaged log must not keep the video here
            if view is not None and view.run["status"] not in RUN_END:
                yield f"{self._folder}/{run_id}"

    def _remove_manifests(self) -> None:
        for run_id in self._store.folders(f"{RESULTS}/{self._folder}"):
            self._store.delete(f"{RESULTS}/{self._folder}/{run_id}/{MANIFEST_NAME}")

    def _remove_prefix(self, root: str) -> None:
        self._store.delete_prefix(f"{root}/{self._folder}")

    def _index_entries(self) -> list[ObjectInfo]:
        """The index is read as a whole: manifests that would name its keys may be gone already."""
        entries = list(self._store.list(ARTIFACT_INDEX))
        with ThreadPoolExecutor(_READERS) as readers:
            runs = list(readers.map(lambda info: indexed_run(self._store, info), entries))
        mine = f"{self._folder}/"
        return [info for info, run in zip(entries, runs, strict=True) if run is not None and run.startswith(mine)]

    def _collected(self) -> list[str]:
        return self._snapshots.keys_of(self._video_id) if self._platform_id == PLATFORM else []

    def _naming(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects that hold the video's id. One that merely holds it within another id is made again when needed."""
        for info in self._store.list(prefix):
            try:
                if self._video_id.encode() in self._store.get(info.key):
                    yield info
            except ObjectNotFound:  # removed since it was listed
                continue

    def _leave_level1(self) -> None:
        if next(self._naming(GLOBAL_FOLDER), None) is not None:
            forget_video(self._states, self._platform_id, self._video_id, holder=_HOLDER)
