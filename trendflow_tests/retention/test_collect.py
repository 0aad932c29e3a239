"""What goes by its age and what never does."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.contracts.canonical import sha256_hex
from trendflow.contracts.manifest import retract_row, update_run
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.dataset.stored_tables import TableStore
from trendflow.retention.collect import GarbageCollector, RetentionReport
from trendflow.retention.policy import RetentionPolicy
from trendflow.storage.artifact_index import ArtifactIndex
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow.storage.run_index import RunIndex
from trendflow_tests.retention.stored import COMPONENT, all_keys, key_of, lost_artifacts, make_run, now, stamp
from trendflow_tests.state.runs import BreakingStore, Crash

DAY = timedelta(days=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> ObjectStore:
    return ObjectStore.open(folder.as_uri())


def collector(store: ObjectStore, after: timedelta) -> GarbageCollector:
    """As if so much time had passed since the objects were written."""
    return GarbageCollector(store, now=stamp(now() + after))


def collect(store: ObjectStore, after: timedelta) -> RetentionReport:
    found = collector(store, after)
    return found.collect(found.plan())


def below(store: ObjectStore, *roots: str) -> set[str]:
    return {key for key in all_keys(store) if key.startswith(tuple(f"{root}/" for root in roots))}


def test_nothing_goes_while_a_run_may_be_at_work(any_store: ObjectStore) -> None:
    make_run(any_store, "old", ended=now() - 100 * DAY)
    any_store.put("result_store/upload/my-video/old/core_clip/other.npz", b"about to be named")
    before = all_keys(any_store)
    assert sum(collect(any_store, timedelta(hours=23)).objects.values()) == 0
    assert all_keys(any_store) == before


def test_frames_and_state_go_after_a_week_and_the_rest_stays(any_store: ObjectStore) -> None:
    identity = make_run(any_store, "run-1", ended=now())
    before = all_keys(any_store)
    assert all_keys(any_store) == before
    collect(any_store, 6 * DAY)
    assert all_keys(any_store) == before
    done = collect(any_store, 8 * DAY)
    gone = before - all_keys(any_store)
    request = f"state/{identity.run_path}/run_request.json"
    assert request in before
    assert gone == {key for key in before if key.startswith(("frames_store/", "state/"))} - {request}
    assert (done.objects["frames"], done.objects["state"]) == (2, 1)
    assert done.sizes["frames"] == len(b"frames ") + len(b"{}")
    assert lost_artifacts(any_store) == []
    assert ArtifactIndex(any_store).lookup(key_of(identity)) is not None


def test_a_run_of_sixty_days_goes_with_everything(any_store: ObjectStore) -> None:
    make_run(any_store, "run-1", ended=now())
    collect(any_store, 59 * DAY)
    assert ResultStore(any_store).read_manifest("upload/my-video/run-1") is not None
    collect(any_store, 61 * DAY)
    assert all_keys(any_store) == set()


def test_the_latest_success_and_two_before_it_stay(store: ObjectStore) -> None:
    for number in range(5):
        make_run(store, f"run-{number}", ended=now() + timedelta(minutes=number))
    failed = make_run(store, "failed", ended=now() - DAY)
    results = ResultStore(store)
    results.update_manifest(
        failed.run_path,
        lambda found: {**found, "components": [{**row, "status": "error"} for row in found["components"]]},
    )
    collect(store, 2 * DAY)
    assert list(results.run_paths()) == [f"upload/my-video/{name}" for name in ("failed", "run-2", "run-3", "run-4")]
    assert lost_artifacts(store) == []


def test_an_unfinished_run_goes_once_nobody_continued_it(store: ObjectStore) -> None:
    make_run(store, "run-1")
    collect(store, 6 * DAY)
    assert ResultStore(store).read_manifest("upload/my-video/run-1") is not None
    collect(store, 8 * DAY)
    assert all_keys(store) == set()


def test_leftovers_go_after_the_grace(store: ObjectStore) -> None:
    kept = make_run(store, "run-1", ended=now())
    results = ResultStore(store)
    orphan = f"result_store/{kept.run_path}/core_clip/left.npz"
    without_manifest = "result_store/upload/other/run-9/core_clip/core_clip.npz"
    page = "render_cache/upload/other/run-9/report.html"
    table = TableStore(store).put("targets", {"a": b"1"})
    publication, copy = "tables/targets/0123/a", "datasets/dataset_v0/dataset.parquet"
    for key in (orphan, without_manifest, page, publication, copy):
        store.put(key, b"left by a writer that died")
    gone = make_run(store, "run-2", ended=now())
    store.delete(f"result_store/{gone.run_path}/manifest.json")
    replaced = sha256_hex(b"the key of a result that another one took the place of")
    ArtifactIndex(store).record(replaced, {"run_path": kept.run_path, "component": "core_clip"})
    collect(store, 2 * DAY)
    left = all_keys(store)
    assert not left & {orphan, without_manifest, page, publication, copy}
    assert not below(store, f"result_store/{gone.run_path}", f"render_cache/{gone.run_path}")
    assert ArtifactIndex(store).lookup(key_of(gone)) is None
    assert ArtifactIndex(store).lookup(replaced) is None
    assert ArtifactIndex(store).lookup(key_of(kept)) is not None
    assert {"tables/targets/current.json", f"{table.prefix}/a"} <= left
    assert results.orphans(kept.run_path) == []


def test_the_run_index_follows_the_runs(store: ObjectStore) -> None:
    make_run(store, "run-1", ended=now())
    latest = make_run(store, "run-2", ended=now() + timedelta(minutes=1))
    store.delete(f"result_store/{latest.run_path}/manifest.json")
    assert below(store, "index/runs")
    collect(store, 2 * DAY)
    assert not below(store, "index/runs")
    assert RunIndex(store).latest(latest) is None


def test_a_damaged_manifest_keeps_its_run_and_holds_up_no_other(store: ObjectStore) -> None:
    damaged = make_run(store, "run-1", ended=now())
    make_run(store, "run-1", video_id="other", ended=now())
    store.put(f"result_store/{damaged.run_path}/manifest.json", b"{")
    mine = below(store, f"result_store/{damaged.run_path}")
    collect(store, 61 * DAY)
    assert below(store, "result_store") == mine
    assert ArtifactIndex(store).lookup(key_of(damaged)) is not None


def test_a_dry_run_says_what_is_then_done(any_store: ObjectStore) -> None:
    for number, days in enumerate((0, 3, 10, 59, 70)):
        make_run(any_store, f"run-{number}", video_id=f"video-{number}", ended=now() - days * DAY)
    any_store.put("tables/targets/0123/a", b"left")
    before = all_keys(any_store)
    found = collector(any_store, 2 * DAY)
    plan = found.plan()
    dry = found.report(plan).as_dict()
    assert all_keys(any_store) == before, "planning changes nothing"
    done = found.collect(plan).as_dict()
    assert dry["removed"] == done["removed"]
    assert done["removed"]["derived"]["objects"] > 0
    assert done["spared"] == 0
    assert {removal.key for removal in plan.removals} == before - all_keys(any_store)
    assert sum(collect(any_store, 2 * DAY).objects.values()) == 0, "nothing is left to do"
    assert validate_document(SchemaRegistry.load(), "retention_report_v1", done) == []
    assert validate_document(SchemaRegistry.load(), "retention_report_v1", dry) == []


def test_temporary_files_are_counted_in_a_dry_run_and_removed_in_another(store: ObjectStore, folder: Path) -> None:
    store.put("a/b", b"1")
    left = folder / "a" / ".tmp-1-dead"
    left.write_bytes(b"half")
    long_ago = (now() - 2 * DAY).timestamp()
    os.utime(left, (long_ago, long_ago))
    found = GarbageCollector(store)
    assert found.report(found.plan()).temporary_files == 1
    assert left.exists()
    assert found.collect(found.plan()).temporary_files == 1
    assert not left.exists()


def test_what_is_named_or_written_after_the_planning_stays(store: ObjectStore) -> None:
    """A resumed run adopts a leftover, another one is written to again: both after the plan was made."""
    adopted = make_run(store, "run-1", ended=now())
    results = ResultStore(store)
    manifest = results.read_manifest(adopted.run_path)
    assert manifest is not None
    row = manifest["components"][0]
    results.update_manifest(adopted.run_path, lambda found: retract_row(found, COMPONENT))
    resumed = make_run(store, "run-2", video_id="other", ended=now() - 58 * DAY)
    found = collector(store, 3 * DAY)
    plan = found.plan()
    artifact = f"result_store/{adopted.run_path}/{row['artifacts'][0]['path']}"
    planned = {removal.key for removal in plan.removals}
    assert {artifact, f"result_store/{resumed.run_path}/manifest.json"} <= planned
    results.update_manifest(adopted.run_path, lambda found: {**found, "components": [row]})
    results.update_manifest(resumed.run_path, lambda found: update_run(found, finished_at=stamp(now() + 2 * DAY)))
    done = found.collect(plan)
    assert done.spared > 0
    assert store.exists(artifact)
    assert results.read_manifest(resumed.run_path) is not None
    assert lost_artifacts(store) == []


def test_a_collection_that_dies_at_any_removal_is_finished_by_the_next() -> None:
    store = ObjectStore.open("memory://")
    for run_id, days in (("old", 70), ("superseded", 9), ("one", 4), ("two", 3), ("three", 2)):
        make_run(store, run_id, ended=now() - days * DAY)
    objects = {key: store.get(key) for key in all_keys(store)}
    soon, later = stamp(now() + 2 * DAY), stamp(now() + 8 * DAY)

    def collected(on: ObjectStore, at: str) -> int:
        found = GarbageCollector(on, now=at)
        return sum(found.collect(found.plan()).objects.values())

    removed = collected(store, soon)
    assert removed > 10
    # What is left of the state of a run that is gone may be that of a run to come, and goes by its own age.
    collected(store, later)
    end = all_keys(store)
    for point in range(removed):
        again = ObjectStore.open("memory://")
        for key, data in objects.items():
            again.put(key, data)
        with pytest.raises(Crash):
            collected(BreakingStore(again, point, Crash(), before=False), soon)
        assert lost_artifacts(again) == [], point
        collected(again, soon)
        assert not below(again, *(f"{root}/upload/my-video/old" for root in ("result_store", "frames_store")))
        collected(again, later)
        assert all_keys(again) == end, point


def test_what_is_left_of_a_deleted_video_goes_at_once(store: ObjectStore) -> None:
    make_run(store, "run-1", ended=now())
    other = make_run(store, "run-1", video_id="other", ended=now())
    found = GarbageCollector(store, deleted={("upload", "my-video")})
    found.collect(found.plan())
    assert not [key for key in all_keys(store) if "/my-video/" in key]
    assert ResultStore(store).read_manifest(other.run_path) is not None


_AGES = st.integers(0, 90).map(lambda days: days * DAY)


@st.composite
def _runs(draw: st.DrawFn) -> list[tuple[str, timedelta | None, timedelta, bool]]:
    """Video, age of the end or None, age of the objects, and whether a leftover lies in the folder."""
    videos, ages = st.sampled_from(["one", "two"]), st.one_of(st.none(), _AGES)
    return draw(st.lists(st.tuples(videos, ages, _AGES, st.booleans()), min_size=1, max_size=6))


@settings(max_examples=30)
@given(runs=_runs(), passed=_AGES, grace_hours=st.integers(0, 72))
def test_no_live_manifest_ever_loses_an_artifact(
    tmp_path_factory: pytest.TempPathFactory,
    runs: list[tuple[str, timedelta | None, timedelta, bool]],
    passed: timedelta,
    grace_hours: int,
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = ObjectStore.open(folder.as_uri())
    at = now()
    for number, (video, ended, written, leftover) in enumerate(runs):
        identity = make_run(store, f"run-{number}", video_id=video, ended=None if ended is None else at - ended)
        if leftover:
            store.put(f"result_store/{identity.run_path}/core_clip/left.npz", b"left")
        _set_age(folder, identity.run_path, at - written)
    # A second later at least, so that nothing was written in the moment that ages are counted to.
    moment, grace = at + passed + timedelta(seconds=1), timedelta(hours=grace_hours)
    young = {info.key for info in store.list() if info.last_modified > moment - grace}
    policy = RetentionPolicy(grace=grace)
    found = GarbageCollector(store, policy, now=stamp(moment))
    plan = found.plan()
    planned, before = {removal.key for removal in plan.removals}, all_keys(store)
    found.collect(plan)
    assert lost_artifacts(store) == []
    assert before - all_keys(store) == planned
    assert not planned & young
    assert list(GarbageCollector(store, policy, now=stamp(moment)).plan().removals) == []


def _set_age(folder: Path, run_path: str, moment: datetime) -> None:
    for root in ("result_store", "frames_store", "render_cache", "state"):
        for path in (folder / root / run_path).rglob("*"):
            if path.is_file():
                os.utime(path, (moment.timestamp(), moment.timestamp()))
