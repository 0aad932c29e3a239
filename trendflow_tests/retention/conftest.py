"""Fixtures of several modules here."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from trendflow.storage.object_store import ObjectStore


@pytest.fixture(params=["file", "memory", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty store of each kind."""
    if request.param == "file":
        return ObjectStore.open((tmp_path / "store").as_uri())
    if request.param == "memory":
        return ObjectStore.open("memory://")
    url = request.getfixturevalue("s3_store_url")
    return ObjectStore.open(f"{url}/{uuid.uuid4().hex}", request.getfixturevalue("s3_options"))
