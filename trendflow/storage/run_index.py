"""Index from a configuration of a video to the latest run that succeeded with it. Rebuildable from manifests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity, validate_video_id
from trendflow.contracts.manifest import Manifest
from trendflow.storage.object_store import ObjectNotFound, ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow.storage.retry import ContentionPolicy, exhausted

ROOT = "index/runs"
KEPT_VIDEOS = 10_000


@dataclass(frozen=True)
class IndexedRun:
    """A run that succeeded; `finished_at` (UTC) is that of its manifest."""

    run_id: str
    finished_at: str


class RunIndex:
    """One small object per platform, video, configuration, sampling policy and release."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._results = ResultStore(store)

    def record(self, identity: RunIdentity, finished_at: str) -> bool:
        """Note a success; False when one that finished later stands. Call it once the manifest says `finished_at`.

        Raises `storage_unavailable` when other writers kept winning.
        """
        key = _object_key(identity)
        data = canonical_json({"latest_success_run_id": identity.run_id, "finished_at": finished_at})
        for _ in ContentionPolicy().attempts():
            if self._store.put_if_absent(key, data):
                return True
            try:
                current, etag = self._store.get_with_etag(key)
            except ObjectNotFound:  # removed in between: the place is free again
                continue
            standing = _parse(current)
            if standing is not None and standing.finished_at > finished_at and self._stands(identity, standing):
                return False
            if self._store.put_if_match(key, data, etag):
                return True
        raise exhausted(TrendFlowError("storage_unavailable", "The run index stayed contended for too long."))

    def latest(self, identity: RunIdentity) -> IndexedRun | None:
        """The latest success of this configuration of this video; the run id of `identity` does not matter.

        An entry is only a hint: it counts while the run's manifest exists, bears the same identity and finished when
        the entry says. A later attempt at the run, which may have failed, makes it void.
        """
        try:
            found = _parse(self._store.get(_object_key(identity)))
        except ObjectNotFound:
            return None
        return found if found is not None and self._stands(identity, found) else None

    def rebuild(self, succeeded: Callable[[Manifest], bool]) -> int:
        """Record every stored run that `succeeded` by its manifest; returns how many there are."""
        count = 0
        for run_path in self._results.run_paths():
            manifest = self._results.read_manifest(run_path)
            if manifest is not None and manifest["run"]["finished_at"] is not None and succeeded(manifest):
                self.record(RunIdentity.from_mapping(manifest["run"]), manifest["run"]["finished_at"])
                count += 1
        return count

    def forget(self, platform_id: str, video_id: str) -> int:
        """Remove the entries of a video; returns their number. Its runs stay."""
        validate_video_id(platform_id, video_id)
        return self._store.delete_prefix(f"{ROOT}/{platform_id}/{video_id}")

    def evict(self, keep: int = KEPT_VIDEOS) -> int:
        """Remove the entries of all videos but the `keep` that were analysed last; returns how many videos left."""
        videos = [
            (platform_id, video_id)
            for platform_id in self._store.folders(ROOT)
            for video_id in self._store.folders(f"{ROOT}/{platform_id}")
        ]
        if len(videos) <= keep:  # the usual case costs two listings
            return 0
        evicted = sorted(videos, key=lambda video: (self._analysed_at(*video), *video))[: len(videos) - keep]
        for platform_id, video_id in evicted:
            self.forget(platform_id, video_id)
        return len(evicted)

    def _analysed_at(self, platform_id: str, video_id: str) -> str:
        """When the latest run of a video finished that an entry names; empty without a readable one."""
        latest = ""
        for info in self._store.list(f"{ROOT}/{platform_id}/{video_id}"):
            try:
                found = _parse(self._store.get(info.key))
            except ObjectNotFound:
                continue
            latest = max(latest, found.finished_at if found is not None else "")
        return latest

    def _stands(self, identity: RunIdentity, found: IndexedRun) -> bool:
        manifest = self._results.read_manifest(f"{identity.platform_id}/{identity.video_id}/{found.run_id}")
        if manifest is None:
            return False
        run = manifest["run"]
        same = {**identity.as_dict(), "run_id": found.run_id, "finished_at": found.finished_at}
        return all(run.get(name) == value for name, value in same.items())


def _object_key(identity: RunIdentity) -> str:
    versions = (identity.config_hash, identity.sampling_policy_version, identity.dataprocessor_version)
    return f"{ROOT}/{identity.platform_id}/{identity.video_id}/{'.'.join(versions)}.json"


def _parse(data: bytes) -> IndexedRun | None:
    try:
        entry = json.loads(data)
        found = IndexedRun(entry["latest_success_run_id"], entry["finished_at"])
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found.run_id, str) and isinstance(found.finished_at, str) else None
