"""What only the local folder has: hidden temporary files, locks, and no host path in any error."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor, wait
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.storage import child_work
from trendflow_tests.storage.runs import first_manifest, make_identity


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def local(root: Path) -> ObjectStore:
    return ObjectStore.open(root.as_uri())


def test_local_paths_lead_to_the_objects(local: ObjectStore, root: Path) -> None:
    local.put("a/b", b"data")
    assert local.local_path("a/b") == root / "a" / "b"
    assert (root / "a" / "b").read_bytes() == b"data"
    assert ObjectStore.open("memory://").local_path("a/b") is None


def test_leftovers_of_dead_writers_are_invisible_and_swept(local: ObjectStore, root: Path) -> None:
    local.put("run/x", b"data")
    old, young = root / "run" / ".tmp-1-old", root / "run" / ".tmp-1-young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert [info.key for info in local.list()] == ["run/x"]
    assert local.sweep_stale(older_than_sec=60) == 1
    assert not old.exists()
    assert young.exists()
    assert local.delete_prefix("run") == 1
    assert not (root / "run").exists()


def test_a_reader_keeps_the_old_object_while_it_is_replaced(local: ObjectStore, root: Path) -> None:
    local.put("x", b"old" * 1000)
    with open(root / "x", "rb") as reader:
        first = reader.read(10)
        local.put("x", b"new")
        assert first + reader.read() == b"old" * 1000
    assert local.get("x") == b"new"


def test_errors_name_the_key_and_never_the_host_path(local: ObjectStore, root: Path) -> None:
    local.put("a", b"an object, not a folder")
    for call in (lambda: local.put("a/b", b""), lambda: local.put_if_absent("a/b", b"")):
        with pytest.raises(TrendFlowError) as caught:
            call()
        assert caught.value.error_code == "config_invalid"
        assert str(root) not in str(caught.value) + repr(caught.value.detail)
        assert "'a/b'" in str(caught.value)


@pytest.mark.parametrize("killed", [False, True], ids=["holder finishes", "holder dies"])
def test_compare_and_swap_is_exclusive_and_freed_by_death(
    local: ObjectStore, root: Path, processes: ForkServerContext, killed: bool
) -> None:
    """While a process stands between comparing and exchanging, no other write of that folder gets in."""
    local.put("run/doc", b"start")
    etag = local.get_with_etag("run/doc")[1]
    arrived, proceed = processes.Event(), processes.Event()
    child = processes.Process(target=child_work.swap_slowly, args=(root.as_uri(), "run/doc", etag, arrived, proceed))
    child.start()
    assert arrived.wait(30)
    with ThreadPoolExecutor(1) as pool:
        swap = pool.submit(local.put_if_match, "run/doc", b"parent", etag)
        done, _ = wait([swap], timeout=0.2)
        assert not done
        if killed:
            child.kill()
        else:
            proceed.set()
        child.join()
        assert swap.result(timeout=30) is killed
    assert child.exitcode == (-signal.SIGKILL if killed else 0)
    assert local.get("run/doc") == (b"parent" if killed else b"child")


def test_eight_writers_lose_nothing_while_others_delete(root: Path, processes: ForkServerContext) -> None:
    """Writers recreate their folder whenever a deletion removed it under them."""
    local = ObjectStore.open(root.as_uri())
    identity = make_identity()
    ResultStore(local).create_manifest(first_manifest(identity))
    arguments = [(root.as_uri(), {}, f"claims/{number}", number) for number in range(8)]
    children = [processes.Process(target=child_work.create_once, args=args) for args in arguments]
    for child in children:
        child.start()
    while any(child.is_alive() for child in children):
        local.delete_prefix("claims")
    assert {child.exitcode for child in children} == {0}
    local.put("claims/after", b"x")
    assert local.get("claims/after") == b"x"
