"""The artifact index: first entry wins, dead and refuted entries are replaced, damage is noticed."""

from __future__ import annotations

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.artifact_index import ArtifactIndex
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.storage.runs import first_manifest, make_identity

KEY = "ab" + "0" * 62
PLACE = f"index/artifacts/ab/{KEY}.json"


def entry(run_id: str, **more: str) -> dict[str, str]:
    return {"run_path": f"upload/my-video/{run_id}", "component": "core_clip", **more}


@pytest.fixture
def index(store: ObjectStore, results: ResultStore) -> ArtifactIndex:
    """An index over a store with the live runs `run-1` and `run-2`."""
    for run_id in ("run-1", "run-2"):
        results.create_manifest(first_manifest(make_identity(run_id)))
    return ArtifactIndex(store)


def test_first_entry_wins_while_its_run_lives(index: ArtifactIndex, store: ObjectStore) -> None:
    assert index.lookup(KEY) is None
    assert index.record(KEY, entry("run-1")) == entry("run-1")
    assert index.record(KEY, entry("run-2")) == entry("run-1")
    assert index.lookup(KEY) == entry("run-1")
    assert store.exists(PLACE)


def test_the_entry_of_a_deleted_run_is_replaced(index: ArtifactIndex, store: ObjectStore) -> None:
    index.record(KEY, entry("run-1"))
    store.delete_prefix("result_store/upload/my-video/run-1")
    assert index.record(KEY, entry("run-2")) == entry("run-2")
    assert index.lookup(KEY) == entry("run-2")


def test_a_run_may_renew_its_own_entry(index: ArtifactIndex) -> None:
    index.record(KEY, entry("run-1"))
    renewed = entry("run-1", created_at="2026-01-01T00:00:00.000Z")
    assert index.record(KEY, renewed) == renewed == index.lookup(KEY)


def test_a_refuted_entry_is_replaced_only_if_it_still_stands(index: ArtifactIndex) -> None:
    index.record(KEY, entry("run-1"))
    assert index.record(KEY, entry("run-2"), refuted=entry("run-3")) == entry("run-1")
    assert index.record(KEY, entry("run-2"), refuted=entry("run-1")) == entry("run-2")


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"component":"core_clip"}', b'{"run_path":7}'])
def test_damaged_entries_are_errors_on_lookup_and_healed_on_record(
    index: ArtifactIndex, store: ObjectStore, damage: bytes
) -> None:
    store.put(PLACE, damage)
    with pytest.raises(TrendFlowError) as caught:
        index.lookup(KEY)
    assert caught.value.error_code == "artifact_validation_failed"
    assert index.record(KEY, entry("run-2")) == entry("run-2") == index.lookup(KEY)


def test_entries_can_be_removed(index: ArtifactIndex) -> None:
    index.record(KEY, entry("run-1"))
    assert index.remove(KEY)
    assert not index.remove(KEY)
    assert index.lookup(KEY) is None


@pytest.mark.parametrize("key", ["", "../../x", "AB" + "0" * 62, "ab"])
def test_keys_are_digests(index: ArtifactIndex, key: str) -> None:
    for call in (index.lookup, index.remove, lambda bad: index.record(bad, entry("run-1"))):
        with pytest.raises(TrendFlowError, match="64 lower-case hex"):
            call(key)
