"""One contract, three stores: local folder, memory and a real S3 server."""

from __future__ import annotations

import uuid
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.storage.object_store import ObjectNotFound, ObjectStore, validate_key
from trendflow.storage.retry import RetryPolicy
from trendflow_tests.s3 import BUCKET, s3_client
from trendflow_tests.storage import child_work
from trendflow_tests.storage.conftest import SharedStore


def test_put_get_and_ranges(store: ObjectStore) -> None:
    store.put("a/-dQw4w9WgXc/x.npz", b"hello world")
    assert store.get("a/-dQw4w9WgXc/x.npz") == b"hello world"
    assert store.get_range("a/-dQw4w9WgXc/x.npz", 6, 5) == b"world"
    assert store.get_range("a/-dQw4w9WgXc/x.npz", 6, 0) == b""
    info = store.head("a/-dQw4w9WgXc/x.npz")
    assert (info.key, info.size) == ("a/-dQw4w9WgXc/x.npz", 11)
    assert store.exists("a/-dQw4w9WgXc/x.npz")
    assert not store.exists("a/-dQw4w9WgXc")
    store.put("a/-dQw4w9WgXc/x.npz", [b"re", memoryview(b"placed"), b""])
    assert store.get("a/-dQw4w9WgXc/x.npz") == b"replaced"
    store.put("empty", b"")
    assert store.get("empty") == b""


def test_large_objects_in_parts(store: ObjectStore, tmp_path: Path) -> None:
    payload = np.random.default_rng(0).integers(0, 256, 20_000_003, dtype=np.uint8)
    store.put("big", [b"head", payload.data, b"tail"])
    assert store.get("big") == b"head" + payload.tobytes() + b"tail"
    store.get_file("big", tmp_path / "down" / "big")
    store.put_file("again", tmp_path / "down" / "big")
    assert store.head("again").size == 20_000_011
    assert store.get("again") == store.get("big")
    assert [path.name for path in (tmp_path / "down").iterdir()] == ["big"]


def test_missing_objects(store: ObjectStore, tmp_path: Path) -> None:
    for read in (
        lambda: store.get("no/thing"),
        lambda: store.get_with_etag("no/thing"),
        lambda: store.get_range("no/thing", 0, 1),
        lambda: store.head("no/thing"),
        lambda: store.get_file("no/thing", tmp_path / "x"),
        lambda: store.copy("no/thing", "other"),
    ):
        with pytest.raises(ObjectNotFound) as caught:
            read()
        assert caught.value.error_code == "dependency_missing"
        assert caught.value.detail == {"kind": "object", "key": "no/thing"}
    assert not store.exists("no/thing")
    assert not store.delete("no/thing")
    assert not (tmp_path / "x").exists()
    with pytest.raises(TrendFlowError, match="local file"):
        store.put_file("other", tmp_path / "x")
    assert not store.exists("other")


def test_conditional_writes(store: ObjectStore) -> None:
    assert store.put_if_absent("doc", b"one")
    assert not store.put_if_absent("doc", b"two")
    data, etag = store.get_with_etag("doc")
    assert data == b"one"
    assert store.put_if_match("doc", b"three", etag)
    assert not store.put_if_match("doc", b"four", etag)
    assert store.get("doc") == b"three"
    etag = store.get_with_etag("doc")[1]
    assert store.delete("doc")
    assert not store.put_if_match("doc", b"five", etag)
    assert not store.exists("doc")
    assert store.put_if_absent("doc", b"six")


def test_listing_and_folders(store: ObjectStore) -> None:
    keys = ["a/b/1", "a/b.x", "a/b0", "a/b-c/2", "a/c/d/3", "ab/4"]
    for key in keys:
        store.put(key, key.encode())
    assert [info.key for info in store.list()] == sorted(keys)
    assert [info.key for info in store.list("a")] == sorted(key for key in keys if key.startswith("a/"))
    assert [info.key for info in store.list("a/b")] == ["a/b/1"]
    assert [info.key for info in store.list("a/b/")] == ["a/b/1"]
    assert [info.size for info in store.list("a/c")] == [7]
    assert list(store.list("nothing")) == []
    assert store.folders() == ("a", "ab")
    assert store.folders("a") == ("b", "b-c", "c")
    assert store.folders("nothing") == ()


def test_a_listing_that_begins_later(store: ObjectStore) -> None:
    keys = [f"log/events/{number:03d}.json" for number in range(1, 13)]
    for key in [*keys, "log/events.jsonl", "log/events0", "log/f/1"]:
        store.put(key, b"{}")
    for place, after in enumerate(keys):
        assert [info.key for info in store.list("log/events", after=after)] == keys[place + 1 :]
    assert [info.key for info in store.list("log/events", after="log/events/005")] == keys[4:]
    assert [info.key for info in store.list("log/events", after="log/events/000.json")] == keys
    for elsewhere in ("log/events", "log/f/1", "001.json", "log/events/a/b"):
        with pytest.raises(TrendFlowError, match="not directly in"):
            store.list("log/events", after=elsewhere)


def test_copies_are_independent_and_deletions_complete(store: ObjectStore) -> None:
    for key in ("run/1/x", "run/1/deep/er/y", "run/10/z"):
        store.put(key, key.encode())
    store.copy("run/1/x", "run/2/x")
    assert store.delete_prefix("run/1") == 2
    assert [info.key for info in store.list()] == ["run/10/z", "run/2/x"]
    assert store.get("run/2/x") == b"run/1/x"
    assert store.delete_prefix("run/1") == 0
    store.put("run/1/x", b"new")
    assert store.get("run/1/x") == b"new"


@pytest.mark.parametrize(
    "key",
    ["", "/abs", "a//b", "a/", "../x", "a/../b", "a/.", ".hidden", "a/.lock", "a\\b", "a b", "a\n", "ä", "a" * 201],
)
def test_unsafe_keys_are_refused(key: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        validate_key(key)
    assert caught.value.error_code == "input_constraint_violated"


@given(st.text(max_size=30))
@example("a/..")
@example("..%2f..")
def test_an_accepted_key_stays_inside_the_store(key: str) -> None:
    root = Path("/store/root")
    try:
        path = root / validate_key(key)
    except TrendFlowError:
        return
    assert path.resolve().is_relative_to(root)
    assert path != root


def test_every_method_checks_its_keys(tmp_path: Path) -> None:
    store = ObjectStore.open(tmp_path.joinpath("store").as_uri())
    (tmp_path / "secret").write_bytes(b"secret")
    store.put("ok", b"")
    calls = (
        store.get,
        store.get_with_etag,
        lambda key: store.get_range(key, 0, 1),
        store.head,
        store.exists,
        lambda key: store.put(key, b""),
        lambda key: store.put_if_absent(key, b""),
        lambda key: store.put_if_match(key, b"", "etag"),
        lambda key: store.put_file(key, tmp_path / "secret"),
        lambda key: store.get_file(key, tmp_path / "copy"),
        lambda key: store.copy(key, "x"),
        lambda key: store.copy("ok", key),
        store.delete,
        store.delete_prefix,
        store.list,
        store.folders,
        store.local_path,
    )
    for call in calls:
        with pytest.raises(TrendFlowError, match="not a valid object key"):
            call("../secret")
    with pytest.raises(TrendFlowError, match="non-negative"):
        store.get_range("ok", -1, 3)
    assert (tmp_path / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize(
    "url", ["", "relative/path", "file://host/path", "http://example.org", "s3://", "memory://name", "/abs", "gs://b"]
)
def test_unknown_urls_are_refused(url: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        ObjectStore.open(url)
    assert caught.value.error_code == "config_invalid"


def test_one_of_eight_processes_creates_an_object(shared_store: SharedStore, processes: ForkServerContext) -> None:
    url, options = shared_store
    arguments = [(url, options, "claims/000000000001.json", writer) for writer in range(8)]
    children = [processes.Process(target=child_work.create_once, args=args) for args in arguments]
    for child in children:
        child.start()
    for child in children:
        child.join()
    codes = [child.exitcode for child in children]
    assert sorted(codes) == [0] + [1] * 7
    assert ObjectStore.open(url, options).get("claims/000000000001.json") == b"%d" % codes.index(0) * 100_000


def test_s3_objects_are_plain_objects(s3_store_url: str, s3_options: dict[str, str]) -> None:
    """A second, independent S3 client sees and writes the same keys."""
    prefix = uuid.uuid4().hex
    store = ObjectStore.open(f"{s3_store_url}/{prefix}", s3_options)
    client = s3_client(s3_options)
    key = "youtube/-dQw4w9WgXc/v1+x=2@y.json"
    assert store.put_if_absent(key, b"ours")
    assert client.get_object(Bucket=BUCKET, Key=f"{prefix}/{key}")["Body"].read() == b"ours"
    etag = store.get_with_etag(key)[1]
    client.put_object(Bucket=BUCKET, Key=f"{prefix}/{key}", Body=b"theirs")
    assert store.get(key) == b"theirs"
    assert not store.put_if_match(key, b"lost", etag)


def test_s3_refuses_wrong_credentials_and_unreachable_servers(s3_options: dict[str, str]) -> None:
    wrong = ObjectStore.open(f"s3://{BUCKET}/x", {**s3_options, "secret_access_key": "wrong"})
    with pytest.raises(TrendFlowError) as caught:
        wrong.put("key", b"data")
    assert caught.value.error_code == "config_invalid"
    assert "wrong" not in str(caught.value)

    nowhere = {**s3_options, "endpoint": "http://127.0.0.1:9"}
    lost = ObjectStore.open(f"s3://{BUCKET}/x", nowhere, retry=RetryPolicy(waits=(0.0, 0.0)))
    for call in (lambda: lost.get("key"), lambda: lost.put_if_absent("key", b""), lambda: list(lost.list())):
        with pytest.raises(TrendFlowError) as caught:
            call()
        assert caught.value.error_code == "storage_unavailable"
