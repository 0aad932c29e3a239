"""The index of successes: the latest one that its manifest bears out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.manifest import new_manifest, update_run
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow.storage.run_index import IndexedRun, RunIndex

IDENTITY = RunIdentity("youtube", "-bcdefghijk", "run-1", "a" * 64, "s1", "1.0.0")
KEY = f"index/runs/youtube/-bcdefghijk/{'a' * 64}.s1.1.0.0.json"


def moment(second: int) -> str:
    return f"2026-01-02T00:00:{second:02d}.000Z"


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return ObjectStore.open("memory://" if request.param == "memory" else tmp_path.as_uri())


def finish(store: ObjectStore, run_id: str, second: int, **changes: Any) -> bool:
    """A run ends well and is indexed."""
    identity = replace(IDENTITY, run_id=run_id, **changes)
    results = ResultStore(store)
    results.create_manifest(new_manifest(identity, moment(0), "starter", {"type": "youtube_url"}))
    results.update_manifest(identity.run_path, lambda found: update_run(found, finished_at=moment(second)))
    return RunIndex(store).record(identity, moment(second))


def latest(store: ObjectStore, **changes: Any) -> IndexedRun | None:
    return RunIndex(store).latest(replace(IDENTITY, run_id="whatever", **changes))


def test_the_latest_success_of_the_same_configuration(store: ObjectStore) -> None:
    assert latest(store) is None
    assert finish(store, "run-1", 5)
    assert store.exists(KEY)
    assert finish(store, "run-2", 7)
    assert not finish(store, "run-3", 6)
    assert latest(store) == IndexedRun("run-2", moment(7))
    for other in ({"config_hash": "b" * 64}, {"sampling_policy_version": "s2"}, {"dataprocessor_version": "1.0.1"}):
        assert latest(store, **other) is None
    assert latest(store, video_id="abcdefghijk") is None


def test_an_entry_counts_only_while_its_manifest_says_the_same(store: ObjectStore) -> None:
    finish(store, "run-1", 5)
    run_path = f"{IDENTITY.platform_id}/{IDENTITY.video_id}/run-1"
    ResultStore(store).update_manifest(run_path, lambda found: update_run(found, finished_at=moment(9)))
    assert latest(store) is None  # a later attempt, which did not succeed
    assert finish(store, "run-1", 12)
    assert latest(store) == IndexedRun("run-1", moment(12))
    store.delete(f"result_store/{run_path}/manifest.json")
    assert latest(store) is None
    assert finish(store, "run-2", 3)
    assert latest(store) == IndexedRun("run-2", moment(3))


@pytest.mark.parametrize("damage", [b"{", b"[]", b"{}", b'{"latest_success_run_id": 7, "finished_at": "x"}'])
def test_a_damaged_entry_is_none_and_is_replaced(store: ObjectStore, damage: bytes) -> None:
    store.put(KEY, damage)
    assert latest(store) is None
    assert finish(store, "run-1", 5)
    assert latest(store) == IndexedRun("run-1", moment(5))


def test_the_index_follows_from_the_manifests(store: ObjectStore) -> None:
    finish(store, "run-1", 5)
    finish(store, "run-2", 7)
    finish(store, "run-3", 9)
    kept = store.get(KEY)
    identity = replace(IDENTITY, run_id="run-4")
    ResultStore(store).create_manifest(new_manifest(identity, moment(11), "starter", {"type": "youtube_url"}))
    assert RunIndex(store).forget(IDENTITY.platform_id, IDENTITY.video_id) == 1
    assert latest(store) is None
    assert RunIndex(store).rebuild(lambda manifest: manifest["run"]["run_id"] != "run-3") == 2
    assert latest(store) == IndexedRun("run-2", moment(7))
    assert RunIndex(store).rebuild(lambda manifest: True) == 3
    assert store.get(KEY) == kept


def test_an_index_below_its_limit_is_not_read(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(store, "run-1", 5)
    monkeypatch.delattr(ObjectStore, "get")
    assert RunIndex(store).evict(1) == 0


def test_the_videos_that_were_analysed_last_stay(store: ObjectStore) -> None:
    for number, second in enumerate((30, 10, 20, 40)):
        finish(store, "run-1", second, video_id=f"video-{number:05d}")
    finish(store, "run-2", 50, video_id="video-00001", config_hash="b" * 64)
    assert RunIndex(store).evict(3) == 1
    assert RunIndex(store).evict(3) == 0
    names = [store.folders("index/runs/youtube"), latest(store, video_id="video-00001")]
    assert names == [("video-00000", "video-00001", "video-00003"), IndexedRun("run-1", moment(10))]
