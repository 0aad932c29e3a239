"""The films, each processed once per process, when the first test asks for it."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from trendflow.models.pool import ModelPool
from trendflow_tests.components.matrix.films import make_film
from trendflow_tests.components.matrix.screening import RandomModels, Screen, Screening, screen


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, pool: ModelPool) -> RandomModels:
    """Loaded once for all films."""
    return RandomModels(pool, models_dir, tmp_path_factory.mktemp("random_weights"))


@pytest.fixture(scope="session")
def screening(tmp_path_factory: pytest.TempPathFactory, sample_video: Path, models: RandomModels) -> Screen:
    """Returns the run of the film of that name."""

    @functools.cache
    def of(name: str) -> Screening:
        folder = tmp_path_factory.mktemp(name)
        return screen(name, make_film(name, sample_video, folder), folder, models)

    return of
