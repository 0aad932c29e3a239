"""Current versions of tables in a store: whole, verified, one at a time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.stored_tables import ROOT, TableStore
from trendflow.storage.object_store import ObjectStore


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore.open("memory://")


def keys(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list(ROOT)]


def test_what_was_put_is_found_and_read(store: ObjectStore, tmp_path: Path) -> None:
    tables = TableStore(store)
    stored = tables.put("targets", {"a.parquet": b"first", "b.json": b"second"}, {"made_from": "x"})
    found = TableStore(store).require("targets")
    assert found == stored
    assert found.files == {name: hashlib.sha256(data).hexdigest() for name, data in tables.read(found).items()}
    assert tables.read(found) == {"a.parquet": b"first", "b.json": b"second"}
    tables.fetch(found, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == tables.read(found)


def test_equal_contents_are_one_version_and_others_replace_them(store: ObjectStore) -> None:
    tables = TableStore(store)
    first = tables.put("targets", {"a": b"1"})
    assert tables.put("targets", {"a": b"1"}).digest == first.digest
    other_facts = tables.put("targets", {"a": b"1"}, {"made_from": "y"})
    assert other_facts.digest != first.digest
    second = tables.put("targets", {"a": b"2"})
    assert keys(store) == sorted([f"{ROOT}/targets/current.json", f"{second.prefix}/a"])
    with pytest.raises(TrendFlowError, match="lack their file a"):
        tables.read(first)


def test_a_writer_at_work_is_neither_seen_nor_disturbed(store: ObjectStore) -> None:
    tables = TableStore(store)
    before = tables.put("targets", {"a": b"1"})
    others = f"{ROOT}/targets/{'0' * 64}/a"
    store.put(others, b"not published yet")
    assert tables.find("targets") == before
    after = tables.put("targets", {"a": b"2"})
    assert keys(store) == sorted([f"{ROOT}/targets/current.json", f"{after.prefix}/a", others])


def test_changed_bytes_and_a_damaged_record_are_refused(store: ObjectStore) -> None:
    tables = TableStore(store)
    stored = tables.put("targets", {"a": b"1"})
    store.put(f"{stored.prefix}/a", b"2")
    with pytest.raises(TrendFlowError) as changed:
        tables.read(stored)
    store.put(f"{ROOT}/targets/current.json", b'{"name": "targets"}')
    with pytest.raises(TrendFlowError) as damaged:
        tables.find("targets")
    assert changed.value.error_code == damaged.value.error_code == "artifact_validation_failed"
    repaired = tables.put("targets", {"a": b"3"})
    assert tables.read(tables.require("targets")) == tables.read(repaired) == {"a": b"3"}


def test_what_was_never_put_is_missing(store: ObjectStore) -> None:
    assert TableStore(store).find("targets") is None
    with pytest.raises(TrendFlowError) as missing:
        TableStore(store).require("targets")
    assert missing.value.error_code == "dependency_missing"


def overtaken_once(store: ObjectStore, monkeypatch: pytest.MonkeyPatch, rival: bytes) -> list[bytes]:
    """The next record is written after another writer has published `rival`; empty once that happened."""
    real, rivals = store.put_if_match, [rival]

    def late(key: str, data: bytes, etag: str) -> bool:
        if rivals:
            TableStore(store).put("targets", {"a": rivals.pop()})
        return real(key, data, etag)

    monkeypatch.setattr(store, "put_if_match", late)
    return rivals


@pytest.mark.parametrize("mine", [b"3", b"1"], ids=["another version", "the version that the other one replaces"])
def test_of_two_writers_at_once_the_later_one_stands_and_nothing_is_left_over(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, mine: bytes
) -> None:
    tables = TableStore(store)
    tables.put("targets", {"a": b"1"})
    rivals = overtaken_once(store, monkeypatch, b"2")
    stored = tables.put("targets", {"a": mine})
    assert rivals == []
    assert tables.require("targets") == stored
    assert tables.read(stored) == {"a": mine}
    assert keys(store) == sorted([f"{ROOT}/targets/current.json", f"{stored.prefix}/a"])


def test_a_writer_that_cleans_up_late_leaves_the_same_version_put_back_by_another(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = TableStore(store)
    tables.put("targets", {"a": b"1"})
    real, rivals = store.delete_prefix, [b"1"]

    def late(prefix: str) -> int:
        if rivals:
            TableStore(store).put("targets", {"a": rivals.pop()})
        return real(prefix)

    monkeypatch.setattr(store, "delete_prefix", late)
    tables.put("targets", {"a": b"2"})
    assert rivals == []
    current = tables.require("targets")
    assert tables.read(current) == {"a": b"1"}
    assert keys(store) == sorted([f"{ROOT}/targets/current.json", f"{current.prefix}/a"])


def test_a_version_without_files_replaces_and_is_replaced(store: ObjectStore) -> None:
    tables = TableStore(store)
    other = tables.put("snapshots", {"a": b"1"})
    tables.put("targets", {"a": b"1"})
    for step in ("x", "y"):
        stored = tables.put("targets", facts={"made_from": step})
        assert tables.current("targets") == (stored, {})
        assert keys(store) == sorted(
            [f"{ROOT}/snapshots/current.json", f"{other.prefix}/a", f"{ROOT}/targets/current.json"]
        )


def test_a_reader_that_was_overtaken_finds_the_newer_version_whole(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = TableStore(store)
    tables.put("targets", {"a": b"1", "b": b"1"})
    real, rivals = store.get, [b"2"]

    def late(key: str) -> bytes:
        if key.endswith("/b") and rivals:  # the other file was read already
            data = rivals.pop()
            TableStore(store).put("targets", {"a": data, "b": data})
        return real(key)

    monkeypatch.setattr(store, "get", late)
    stored, contents = tables.current("targets")
    assert rivals == []
    assert (stored, contents) == (tables.require("targets"), {"a": b"2", "b": b"2"})


def test_a_file_of_the_current_version_that_is_gone_is_an_error(store: ObjectStore) -> None:
    tables = TableStore(store)
    stored = tables.put("targets", {"a": b"1"})
    store.delete(f"{stored.prefix}/a")
    with pytest.raises(TrendFlowError, match="lack their file a") as gone:
        tables.current("targets")
    assert gone.value.error_code == "artifact_validation_failed"
