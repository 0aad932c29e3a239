"""The same tests on every kind of store: a local folder, memory and a real S3 server."""

from __future__ import annotations

import multiprocessing
import uuid
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore

SharedStore = tuple[str, dict[str, str]]


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    return (tmp_path / "store folder").as_uri()


@pytest.fixture(params=["file", "s3"])
def shared_store(request: pytest.FixtureRequest, file_url: str) -> SharedStore:
    """URL and options of an empty store that several processes can open."""
    if request.param == "file":
        return file_url, {}
    url = request.getfixturevalue("s3_store_url")
    return f"{url}/{uuid.uuid4().hex}", request.getfixturevalue("s3_options")


@pytest.fixture(params=["file", "memory", "s3"])
def store(request: pytest.FixtureRequest, file_url: str) -> ObjectStore:
    """An empty object store of each kind."""
    if request.param == "file":
        return ObjectStore.open(file_url)
    if request.param == "memory":
        return ObjectStore.open("memory://")
    url = request.getfixturevalue("s3_store_url")
    return ObjectStore.open(f"{url}/{uuid.uuid4().hex}", request.getfixturevalue("s3_options"))


@pytest.fixture
def results(store: ObjectStore) -> ResultStore:
    return ResultStore(store)


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Starts clean child processes in milliseconds; they may kill themselves without harming the tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trendflow_tests.storage.child_work"])
    return context
