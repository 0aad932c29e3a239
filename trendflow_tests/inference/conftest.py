"""SYNTHETIC models, trained once."""

from __future__ import annotations

from pathlib import Path

import pytest

from trendflow_tests.inference.synthetic import write_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training run folder that passes for a real one."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def metadata_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that reads nothing of the run."""
    return write_model(tmp_path_factory.mktemp("metadata_model"), content=False)


@pytest.fixture(scope="session")
def synthetic_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that says that it is SYNTHETIC."""
    return write_model(tmp_path_factory.mktemp("synthetic_model"), synthetic=True)
