"""What only the local folder has: hidden temporary files, locks, and no host path in any error."""

from __future__ import annotations

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor, wait
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage import local_backend
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
    assert arrived.wait(600)
    with ThreadPoolExecutor(1) as pool:
        swap = pool.submit(local.put_if_match, "run/doc", b"parent", etag)
        done, _ = wait([swap], timeout=0.2)
        assert not done
        if killed:
            child.kill()
        else:
            proceed.set()
        child.join()
        assert swap.result(timeout=600) is killed
    assert child.exitcode == (-signal.SIGKILL if killed else 0)
    assert local.get("run/doc") == (b"parent" if killed else b"child")


def test_eight_writers_lose_nothing_while_others_delete(root: Path, processes: ForkServerContext) -> None:
    """Writers recreate their folder whenever a deletion removed it under them."""
    local = ObjectStore.open(root.as_uri())
    identity = make_identity()
    ResultStore(local).create_manifest(first_manifest(identity))
    arguments = [(root.as_uri(), f"claims/{number}", number) for number in range(8)]
    children = [processes.Process(target=child_work.create_among_deletions, args=args) for args in arguments]
    for child in children:
        child.start()
    pause = 0.001
    while alive := [child for child in children if child.is_alive()]:
        local.delete_prefix("claims")
        alive[0].join(pause)
        pause *= 1.02  # deletions may be faster than this machine gets a writer from its folder to its file
    assert {child.exitcode for child in children} == {0}
    local.put("claims/after", b"x")
    assert local.get("claims/after") == b"x"


def _rmdir_and_parent(path: Path) -> None:
    os.rmdir(path)
    os.rmdir(path.parent)


@pytest.mark.parametrize("removed", ["the folder", "the folder and its parent"])
@pytest.mark.parametrize("seen", ["exists", "is gone", "was made"])
def test_a_folder_that_vanishes_while_it_is_made_is_made_again(
    local: ObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch, seen: str, removed: str
) -> None:
    """Another writer makes the folder and a deletion removes it, at each moment that this writer can notice."""
    mkdir, made = os.mkdir, []

    def fleeting(path: Any, *args: Any, **kwargs: Any) -> None:
        mkdir(path, *args, **kwargs)
        made.append(Path(path))
        if made.count(Path(path)) > 1 or Path(path) != root / "a" / "b":
            return
        shutil.rmtree(path) if removed == "the folder" else _rmdir_and_parent(Path(path))
        if seen == "exists":
            raise FileExistsError(17, "File exists", str(path))
        if seen == "is gone":
            raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(os, "mkdir", fleeting)
    local.put("a/b/key", b"data")
    assert made.count(root / "a" / "b") == 2
    assert local.get("a/b/key") == b"data"


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_what_stands_in_the_place_of_a_folder_is_an_error(local: ObjectStore, root: Path, kind: str) -> None:
    if kind == "file":
        (root / "a").write_bytes(b"in the way")
    else:
        (root / "a").symlink_to(root / "nowhere")
    with pytest.raises(TrendFlowError, match=r"'a/b/key': File exists\.") as caught:
        local.put("a/b/key", b"data")
    assert caught.value.error_code == "config_invalid"


def test_a_linked_folder_is_a_folder(local: ObjectStore, root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (root / "a").symlink_to(tmp_path / "elsewhere")
    local.put("a/b/key", b"data")
    assert (tmp_path / "elsewhere" / "b" / "key").read_bytes() == b"data"


@pytest.mark.parametrize("place", ["below a file", "where no folder can be made"])
def test_a_store_that_cannot_be_made_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr(local_backend, "_GIVE_UP_SEC", 0.1)  # as if others deleted the folder all the time
    (tmp_path / "file").write_bytes(b"")
    folder = tmp_path / "file" / "store" if place == "below a file" else Path("/proc/store")
    with pytest.raises(TrendFlowError) as caught:
        ObjectStore.open(folder.as_uri())
    assert caught.value.error_code == "config_invalid"
    assert caught.value.message.startswith("The folder of the local store")
    assert "''" not in caught.value.message
    assert str(folder) not in str(caught.value) + repr(caught.value.detail)
