"""Fixtures of the tests that start servers of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from trendflow.models.store import WeightsStore
from trendflow.models.triton.repository import Repository, write_repository
from trendflow_tests.models.builders import place
from trendflow_tests.triton import double_entry


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    entry, data = double_entry("double")
    place(tmp_path / "models", entry, data)
    return write_repository([entry], WeightsStore(tmp_path / "models"), tmp_path / "repository")
