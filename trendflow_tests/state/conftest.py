from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

import pytest

from trendflow.state.store import StateStore
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.state.runs import FixedClock, memory, states_in


@pytest.fixture
def store() -> ObjectStore:
    return memory()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def states(store: ObjectStore, clock: FixedClock) -> StateStore:
    return states_in(store, clock)


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Starts clean child processes in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trendflow_tests.state.child_work"])
    return context
