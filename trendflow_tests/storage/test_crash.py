"""Kill −9 at every write point: the store stays valid, and the next attempt ends with the same bytes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from trendflow.storage.artifact_index import ArtifactIndex
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.storage import child_work
from trendflow_tests.storage.runs import make_identity

RUN = make_identity().run_path
POINTS = {"file": 80, "s3": 8}
"""At least so many write points there are; fewer would mean that the killing misses its targets."""


@pytest.fixture(params=["file", "s3"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[int], tuple[str, dict[str, str]]]:
    """URL and options of the store for one crash."""
    if request.param == "file":
        return lambda point: (tmp_path.joinpath(str(point)).as_uri(), {})
    url, options = request.getfixturevalue("s3_store_url"), request.getfixturevalue("s3_options")
    return lambda point: (f"{url}/{tmp_path.name}/{point}", options)


def digests(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(entry["path"], entry["sha256"], entry["content_digest"]) for entry in row["artifacts"]]


@pytest.mark.parametrize("replacing", [False, True], ids=["first run", "replacing a result"])
def test_kill_at_every_write_point(
    request: pytest.FixtureRequest,
    new_store: Callable[[int], tuple[str, dict[str, str]]],
    processes: ForkServerContext,
    replacing: bool,
) -> None:
    expected = digests(child_work.store_run("memory://", {}, seed=1, second=1))
    point = 0
    while True:
        url, options = new_store(point)
        if replacing:
            child_work.store_run(url, options, seed=0, second=0)
        child = processes.Process(target=child_work.store_run_and_die, args=(url, options, 1, 1, point))
        child.start()
        child.join()
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        check_after_crash(url, options)
        check_resumed(url, options, expected)
        point += 1
    kind = "file" if url.startswith("file") else "s3"
    assert point >= POINTS[kind]
    check_resumed(url, options, expected)


def check_after_crash(url: str, options: dict[str, str]) -> None:
    store = ObjectStore.open(url, options)
    results = ResultStore(store)
    if results.read_manifest(RUN) is None:
        assert list(store.list()) == []
        return
    assert [finding for finding in results.validate_run(RUN) if finding.severity == "problem"] == []


def check_resumed(url: str, options: dict[str, str], expected: list[tuple[str, str, str]]) -> None:
    assert digests(child_work.store_run(url, options, seed=1, second=1)) == expected
    store = ObjectStore.open(url, options)
    results = ResultStore(store)
    assert results.validate_run(RUN) == []
    assert ArtifactIndex(store).lookup(child_work.KEY) == {"run_path": RUN, "component": child_work.COMPONENT}
    store.sweep_stale(older_than_sec=-1)
    folder = store.local_path("x")
    if folder is not None:
        assert list(folder.parent.rglob(".tmp-*")) == []
