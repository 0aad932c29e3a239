"""Small real runs whose servers fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance

from trendflow_tests.faults.house import Client, House, open_house
from trendflow_tests.orchestration.conftest import _nothing_stays_open, clip, dagster_home, submit

__all__ = ["_nothing_stays_open", "clip", "dagster_home", "submit"]


@pytest.fixture(scope="package")
def house(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with open_house(models_dir, tmp_path_factory.mktemp("house")) as opened:
        yield opened


@pytest.fixture
def client(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """This process works with the servers of the house, past its proxy."""
    for name, value in house.environment.items():
        monkeypatch.setenv(name, value)
    with DagsterInstance.get() as instance:
        yield Client(house, instance)
    house.proxy.decide = lambda request: None
