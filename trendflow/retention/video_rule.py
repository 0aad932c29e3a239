"""The runs of one video: which of them go, and what of the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import Manifest
from trendflow.contracts.vocab import PLATFORM_IDS
from trendflow.retention.policy import RetentionPolicy
from trendflow.retention.removal import Reason, Removal
from trendflow.retention.shared_rules import indexed_run
from trendflow.state.layout import request_key
from trendflow.storage.object_store import ObjectInfo, ObjectStore
from trendflow.storage.result_store import MANIFEST_NAME, ResultStore

RESULTS, FRAMES, RENDERED, STATE = "result_store", "frames_store", "render_cache", "state"
AREAS = (RESULTS, RENDERED, FRAMES, STATE)
"""Parts of the store with a folder `<platform_id>/<video_id>/<run_id>` for each run."""
RUN_INDEX = "index/runs"
_TEXTS = "_tmp_text/"

Objects = Mapping[str, Sequence[ObjectInfo]]
"""Area → objects of one run."""


@dataclass(frozen=True)
class _Run:
    """One run as it is stored. `manifest` is None where there is none."""

    path: str
    objects: Objects
    manifest: Manifest | None

    def all(self) -> Iterator[ObjectInfo]:
        for area in AREAS:
            yield from self.objects.get(area, ())

    @property
    def ended_at(self) -> datetime | None:
        """When a run with a manifest finished, or was last written to; None for one that did not finish."""
        finished = self.manifest and self.manifest["run"]["finished_at"]
        return datetime.fromisoformat(finished) if finished else None

    @property
    def touched_at(self) -> datetime:
        times = [info.last_modified for info in self.all()]
        if self.manifest is not None:
            times.append(datetime.fromisoformat(self.manifest["run"]["updated_at"]))
        return max(times)

    @property
    def succeeded(self) -> bool:
        """Finished without any error. One with a partial failure is kept by its age alone."""
        return self.ended_at is not None and all(
            row["status"] != "error" for row in (self.manifest or {"components": ()})["components"]
        )

    @property
    def configuration(self) -> tuple[str, ...]:
        run = (self.manifest or {})["run"]
        return run["config_hash"], run["sampling_policy_version"], run["dataprocessor_version"]


class VideoRule:
    """Ages of runs, frames, raw texts, state and leftovers, one scope `<platform_id>/<video_id>` at a time.

    `deleted`: (platform_id, video_id) of erased videos, of which nothing stays whatever its age. `excluded`: videos
    that are left to others.
    """

    def __init__(
        self,
        store: ObjectStore,
        policy: RetentionPolicy,
        now: datetime,
        deleted: Container[tuple[str, str]] = (),
        excluded: Container[tuple[str, str]] = (),
    ) -> None:
        self._store, self._results = store, ResultStore(store)
        self._policy, self._now = policy, now
        self._deleted, self._excluded = deleted, excluded

    def scopes(self) -> Iterable[str]:
        return sorted(
            {
                f"{platform_id}/{video_id}"
                for root in (*AREAS, RUN_INDEX)
                for platform_id in PLATFORM_IDS
                for video_id in self._store.folders(f"{root}/{platform_id}")
                if (platform_id, video_id) not in self._excluded
            }
        )

    def removals(self, scope: str, gone: frozenset[str] = frozenset()) -> Iterator[Removal]:
        # The manifests are read after the listings: what a manifest names by then is not taken for an orphan.
        listed = self._listed(scope)
        entries = list(self._store.list(f"{RUN_INDEX}/{scope}"))
        platform_id, _, video_id = scope.partition("/")
        if (platform_id, video_id) in self._deleted:
            left = [_Run(path, objects, None) for path, objects in sorted(listed.items())]
            for info in (*(info for run in left for info in _manifest_first(run)), *entries):
                yield Removal.of("deleted_video", info)
            return
        runs, damaged = [], set()
        for path, objects in sorted(listed.items()):
            try:
                runs.append(_Run(path, objects, self._results.read_manifest(path)))
            except TrendFlowError as error:
                if error.error_class == "transient":
                    raise
                damaged.add(path)  # what belongs to it cannot be told, and a person may want to look
        leaving = {run.path for run in self._leaving(runs)}
        for run in runs:
            if run.path in leaving:
                yield from (Removal.of("derived", info) for info in _manifest_first(run))
            elif not self._is_younger(run.touched_at):
                yield from self._parts(run)
        standing = damaged | {run.path for run in runs if run.manifest is not None} - leaving - gone
        for info in entries:
            named = indexed_run(self._store, info, "latest_success_run_id")
            if named is not None and f"{scope}/{named}" not in standing and not self._is_younger(info.last_modified):
                yield Removal.of("index", info)

    def _listed(self, scope: str) -> dict[str, dict[str, list[ObjectInfo]]]:
        found: dict[str, dict[str, list[ObjectInfo]]] = defaultdict(lambda: defaultdict(list))
        for area in AREAS:
            for info in self._store.list(f"{area}/{scope}"):
                run_id, slash, _ = info.key.removeprefix(f"{area}/{scope}/").partition("/")
                if slash:
                    found[f"{scope}/{run_id}"][area].append(info)
        return found

    def _leaving(self, runs: Sequence[_Run]) -> Iterator[_Run]:
        """Runs that go with everything they made."""
        newer: dict[tuple[str, ...], int] = defaultdict(int)
        known = [run for run in runs if run.manifest is not None]
        for run in sorted(known, key=lambda run: (run.ended_at or run.touched_at, run.path), reverse=True):
            before = newer[run.configuration]
            newer[run.configuration] += run.succeeded
            if self._is_younger(run.touched_at):
                continue
            ended = run.ended_at
            if ended is None:
                due = run.touched_at + self._policy.unfinished <= self._now
            else:
                superseded = run.succeeded and before >= self._policy.successes
                due = superseded or ended + self._policy.derived <= self._now
            if due:
                yield run

    def _parts(self, run: _Run) -> Iterator[Removal]:
        """What goes of a run that stays, or of which there is no manifest; nothing of it was touched in the grace."""
        results, rendered = run.objects.get(RESULTS, ()), run.objects.get(RENDERED, ())
        named = _named(run)
        for info in results:
            if info.key in named:
                continue
            if info.key.startswith(f"{RESULTS}/{run.path}/{_TEXTS}"):
                yield from self._older("raw_text", [info])
            else:
                yield Removal.of("orphans", info)
        if run.manifest is None:
            yield from (Removal.of("render_cache", info) for info in rendered)
        frames = run.objects.get(FRAMES, ())
        block = run.manifest and run.manifest["run"]["frames_dir"]
        if run.manifest is None:  # which is there before any frame is
            yield from (Removal.of("orphans", info) for info in frames)
        elif block is None:
            yield from self._older("frames", frames)
        elif datetime.fromisoformat(block["expires_at"]) <= self._now:
            yield from (Removal.of("frames", info) for info in frames)
        request = request_key(run.path)
        state = [info for info in run.objects.get(STATE, ()) if run.manifest is None or info.key != request]
        if run.ended_at is not None or run.manifest is None:
            yield from self._older("state", state)

    def _older(self, reason: Reason, objects: Sequence[ObjectInfo]) -> Iterator[Removal]:
        """All of the objects once the newest of them is old enough: they are of use together only."""
        age = {"frames": self._policy.frames, "raw_text": self._policy.raw_text, "state": self._policy.state}[reason]
        if objects and max(info.last_modified for info in objects) + age <= self._now:
            yield from (Removal.of(reason, info) for info in objects)

    def _is_younger(self, moment: datetime) -> bool:
        return moment + self._policy.grace > self._now


def _manifest_first(run: _Run) -> Iterator[ObjectInfo]:
    """Without its manifest a run does not exist, so no reader meets one that lacks a part."""
    manifest = f"{RESULTS}/{run.path}/{MANIFEST_NAME}"
    yield from sorted(run.all(), key=lambda info: info.key != manifest)


def _named(run: _Run) -> set[str]:
    folder = f"{RESULTS}/{run.path}"
    rows = run.manifest["components"] if run.manifest is not None else ()
    named = {f"{folder}/{artifact['path']}" for row in rows for artifact in row["artifacts"]}
    return named | ({f"{folder}/{MANIFEST_NAME}"} if run.manifest is not None else set())
