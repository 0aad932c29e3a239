from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from trendflow_tests.service.deployment import client, make_parts, served
from trendflow_tests.submission.desks import Deployment


@pytest.fixture
def behind() -> Deployment:
    return Deployment()


@pytest.fixture
def address(behind: Deployment) -> Iterator[str]:
    with served(make_parts(behind)) as found:
        yield found


@pytest.fixture
def api(address: str) -> Iterator[httpx.Client]:
    """A caller who may do everything."""
    with client(address) as found:
        yield found
