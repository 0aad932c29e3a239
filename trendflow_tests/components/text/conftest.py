"""The shipped text encoder."""

from __future__ import annotations

import pytest

from trendflow.models.catalogue import Catalogue
from trendflow.models.pool import ModelPool
from trendflow_tests.components.text.documents import Bench


@pytest.fixture(scope="session")
def bench(pool: ModelPool) -> Bench:
    return Bench(pool.get(Catalogue.load()["minilm_l6"]))
