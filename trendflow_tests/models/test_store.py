"""Digests are checked before every load, and files appear whole or not at all."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.store import WeightsStore
from trendflow_tests.models.builders import entry_for, place

DATA = b"weights" * 1000


def test_a_right_file_is_verified(tmp_path: Path) -> None:
    entry = entry_for(DATA)
    path = place(tmp_path, entry, DATA)
    assert WeightsStore(tmp_path).verify(entry) == [path]
    assert path == tmp_path / "tiny" / "1.0" / "model.onnx"


def test_an_absent_file_is_missing_and_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrendFlowError, match=r"trendflow models build") as caught:
        WeightsStore(tmp_path).verify(entry_for(DATA))
    assert caught.value.error_code == "weights_missing"
    assert caught.value.detail["state"] == "missing"
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("wrong", [DATA[:-1], DATA + b"x", b"W" + DATA[1:]])
def test_a_wrong_file_is_refused(tmp_path: Path, wrong: bytes) -> None:
    entry = entry_for(DATA)
    place(tmp_path, entry, wrong)
    with pytest.raises(TrendFlowError) as caught:
        WeightsStore(tmp_path).verify(entry)
    assert (caught.value.error_code, caught.value.detail["state"]) == ("weights_missing", "mismatch")


def test_a_file_exchanged_after_it_was_verified_is_noticed(tmp_path: Path) -> None:
    entry, store = entry_for(DATA), WeightsStore(tmp_path)
    path = place(tmp_path, entry, DATA)
    store.verify(entry)
    stat = path.stat()
    other = tmp_path / "other"
    other.write_bytes(b"W" + DATA[1:])  # same size …
    other.replace(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # … and same time
    with pytest.raises(TrendFlowError, match="weights_missing"):
        store.verify(entry)


def test_an_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    entry, store = entry_for(DATA), WeightsStore(tmp_path)
    path = place(tmp_path, entry, DATA)
    store.verify(entry)
    before = path.stat()
    with path.open("r+b") as stream:  # a change that leaves size, inode and time as they were
        stream.write(b"W")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.verify(entry) == [path]


def test_wrong_bytes_never_become_the_file(tmp_path: Path) -> None:
    entry, store = entry_for(DATA), WeightsStore(tmp_path)
    place(tmp_path, entry, DATA)
    with pytest.raises(TrendFlowError) as caught, store.placing(entry, entry.files[0]) as temporary:
        temporary.write_bytes(b"something else")
    assert caught.value.error_code == "weights_missing"
    assert store.entry_state(entry) == "present"
    assert [path.name for path in (tmp_path / "tiny" / "1.0").iterdir()] == ["model.onnx"]


def test_a_failure_while_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    entry, store = entry_for(DATA), WeightsStore(tmp_path)

    def write() -> None:
        with store.placing(entry, entry.files[0]) as temporary:
            temporary.write_bytes(DATA[:10])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert list((tmp_path / "tiny" / "1.0").iterdir()) == []


def test_concurrent_writers_and_readers_never_meet_half_a_file(tmp_path: Path) -> None:
    data = os.urandom(1 << 20)
    entry, store = entry_for(data), WeightsStore(tmp_path)

    def write(_: int) -> str:
        with store.placing(entry, entry.files[0]) as temporary:
            temporary.write_bytes(data)
        return store.entry_state(entry)

    def read(_: int) -> str:
        return store.entry_state(entry)

    with ThreadPoolExecutor(4) as executor:
        states = {*executor.map(write, range(8)), *executor.map(read, range(8))}
    assert states <= {"present", "missing"}
    assert store.entry_state(entry) == "present"
