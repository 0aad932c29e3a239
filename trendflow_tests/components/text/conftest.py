"""The shipped text encoder, loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest

from trendflow.models.catalogue import Catalogue
from trendflow.models.pool import ModelPool
from trendflow_tests.components.text.documents import Bench


@pytest.fixture(scope="session")
def bench(models_dir: Path) -> Bench:
    return Bench(ModelPool(models_dir).get(Catalogue.load()["minilm_l6"]))
