"""Work that tests run in child processes: concurrent writers, and a writer that is killed at a chosen point."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np
import obstore

from trendflow.contracts.canonical import content_digest
from trendflow.contracts.manifest import Manifest, component_row_from_meta, find_row, upsert_row
from trendflow.storage import local_backend
from trendflow.storage.artifact_index import ArtifactIndex
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.storage.runs import CREATED_AT, KIND, example_arrays, first_manifest, make_identity, meta_for

COMPONENT = "segmenter"
KEY = "c" * 64


def update_many_times(url: str, options: dict[str, str], run_path: str, writer: int, updates: int) -> None:
    """Add `updates` numbered entries to the manifest, one compare-and-swap each."""
    results = ResultStore(ObjectStore.open(url, options))
    for number in range(updates):
        name = f"writer_{writer}_{number}"

        def add(manifest: Manifest, name: str = name) -> Manifest:
            skipped = [entry for entry in manifest["run"]["skipped"] if entry["name"] != name]
            return {
                **manifest,
                "run": {**manifest["run"], "skipped": [*skipped, {"name": name, "because": "test"}]},
            }

        results.update_manifest(run_path, add)


def create_once(url: str, options: dict[str, str], key: str, writer: int) -> None:
    """Exit code 0 for the writer that created the object, 1 for the others."""
    created = ObjectStore.open(url, options).put_if_absent(key, b"%d" % writer * 100_000)
    raise SystemExit(0 if created else 1)


def create_among_deletions(url: str, key: str, writer: int) -> None:
    """`create_once` by a writer that never gives up; how long that takes is a matter of the machine."""
    local_backend._GIVE_UP_SEC = float("inf")
    create_once(url, {}, key, writer)


def store_run(url: str, options: dict[str, str], seed: int, second: int) -> dict[str, Any]:
    """Everything a pipeline stores for one component, each step skipped when it is done already. Returns the row."""
    store = ObjectStore.open(url, options)
    results = ResultStore(store)
    identity = make_identity()
    run_path = identity.run_path
    created_at = CREATED_AT.replace("00.000Z", f"{second:02d}.000Z")
    arrays, dense = example_arrays(seed), {"luma": np.linspace(0, 1, 500 + seed, dtype=np.float32)}
    digest = content_digest(COMPONENT, f"{COMPONENT}_npz_v1", "ok", None, arrays)

    results.create_manifest(first_manifest(identity))
    manifest = results.read_manifest(run_path)
    row = find_row(manifest, COMPONENT) if manifest else None
    if row is None or row["artifacts"][0]["content_digest"] != digest:
        mask = results.write_array(run_path, COMPONENT, "mask", np.eye(seed + 20, dtype=np.uint8), "mask_npy_v1")
        dense_meta = meta_for(
            identity, COMPONENT, dense, schema_version="dense_signals_npz_v1", key=KEY, created_at=created_at
        )
        extra = results.write_artifact(run_path, COMPONENT, "dense_signals", dense, dense_meta)
        meta = meta_for(identity, COMPONENT, arrays, key=KEY, created_at=created_at)
        main = results.write_artifact(run_path, COMPONENT, COMPONENT, arrays, meta)
        row = component_row_from_meta(
            meta,
            kind=KIND,
            artifacts=[main, extra, mask],
            started_at=created_at,
            finished_at=created_at,
            duration_ms=1.0,
        )
        fresh = row
        results.update_manifest(run_path, lambda document: upsert_row(document, fresh))
    ArtifactIndex(store).record(KEY, {"run_path": run_path, "component": COMPONENT})
    return row


def store_run_and_die(url: str, options: dict[str, str], seed: int, second: int, point: int) -> None:
    """`store_run`, killed with SIGKILL at the `point`-th write operation; exits normally when there are fewer.

    On a local store every system call that changes the disk counts twice (before and after it) and a write three times
    (also halfway through); on S3 every PUT and DELETE counts twice.
    """
    remaining = point

    def visit() -> None:
        nonlocal remaining
        remaining -= 1
        if remaining < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            visit()
            result = function(*args, **kwargs)
            visit()
            return result

        return call

    def halting_write(descriptor: int, data: memoryview) -> int:
        visit()
        half = write(descriptor, data[: len(data) // 2])
        visit()
        return half + write(descriptor, data[half:])

    os.fsync = lambda descriptor: None  # a killed process loses nothing that it handed to the system
    write = os.write
    for name in ("mkdir", "fsync", "link", "rename", "unlink", "rmdir"):
        setattr(os, name, around(getattr(os, name)))
    os.write = halting_write
    obstore.put = around(obstore.put)
    obstore.delete = around(obstore.delete)
    store_run(url, options, seed, second)


def swap_slowly(url: str, key: str, etag: str, arrived: Event, proceed: Event) -> None:
    """Compare-and-swap that stops between the comparison and the exchange until told to go on.

    Exit code 0 when it won, 1 when it lost.
    """
    rename = os.rename

    def wait_and_rename(source: Any, target: Any) -> None:
        arrived.set()
        proceed.wait()
        rename(source, target)

    os.rename = wait_and_rename
    raise SystemExit(0 if ObjectStore.open(url).put_if_match(key, b"child", etag) else 1)
