"""Homes for fleets that end with their test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trendflow.fleet.service import Blueprint
from trendflow.fleet.supervisor import Fleet


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that other users may enter; of one that only root may enter the database would be kept in /var/lib."""
    folder = Path(tempfile.mkdtemp(prefix="trendflow-fleet-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def fleet(home: Path) -> Iterator[Callable[..., Fleet]]:
    """Makes the fleet of this test's home from blueprints; whatever it started is ended with the test."""
    folder = home / "fleet"

    def make(*blueprints: Blueprint, **changes: Any) -> Fleet:
        return Fleet(folder, blueprints, **changes)

    yield make
    Fleet(folder, ()).down()
