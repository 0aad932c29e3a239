"""Memory that a client shares with a server: nothing of it stays behind, however a request or a client ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from trendflow.models.triton import shared_memory
from trendflow.models.triton.connection import Session
from trendflow.models.triton.shared_memory import SharedMemoryPool
from trendflow_tests.models.triton.faulty import HANGS, code_of, hanging, own_names, rows, until
from trendflow_tests.triton import Served

pytestmark = pytest.mark.xdist_group("triton")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a server lets go is its affair: however long that takes, closing must end with it."""
    monkeypatch.setattr(shared_memory, "_SETTLE_S", float("inf"))


def regions_of(served: Served) -> set[str]:
    """All regions that the server keeps, of whatever client."""
    with InferenceServerClient(served.state.grpc_url) as client:
        return set(client.get_system_shared_memory_status().regions)


def test_no_memory_stays_behind(served: Served) -> None:
    """Neither a name in /dev/shm nor a region that the server keeps."""
    before = regions_of(served)
    session = Session(served.state.grpc_url)
    session.result(session.send(served.entries["double"], rows(8), {"B": 8}))
    assert session.uses_shared_memory
    assert own_names() == []
    assert regions_of(served) - before
    session.close()
    assert regions_of(served) <= before


def test_a_session_that_is_dropped_gives_its_memory_back(served: Served) -> None:
    before = regions_of(served)
    session = Session(served.state.grpc_url)
    assert regions_of(served) - before
    del session
    assert regions_of(served) <= before


def test_memory_of_a_request_that_was_given_up_is_not_used_before_the_server_is_done(served: Served) -> None:
    """While the server may write into it, it refuses to give it up, and later requests get other memory."""
    before = regions_of(served)
    session = Session(served.state.grpc_url)
    with hanging(served) as started:
        request = session.send(served.entries["faulty"], rows(2, HANGS), {"B": 2})
        until(started.exists)
        request.cancel()
        assert code_of(lambda: session.result(request)) == "triton_unavailable"
        late = regions_of(served) - before
        assert len(late) == 1
        session.result(session.send(served.entries["double"], rows(2), {"B": 2}))
        assert late < regions_of(served) - before, "it is in use"
    session.close()
    assert regions_of(served) <= before


def test_memory_of_a_client_that_was_killed_is_given_up_by_the_next(served: Served) -> None:
    before = regions_of(served)
    killed = f"""
import os, signal
from trendflow.models.triton.connection import Session
session = Session({served.state.grpc_url!r})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", killed], capture_output=True).returncode == -signal.SIGKILL
    left = regions_of(served) - before
    assert len(left) == 1
    alive = Session(served.state.grpc_url)
    assert not left & regions_of(served)
    other = Session(served.state.grpc_url)
    assert len(regions_of(served) - before) == 2, "nobody takes the memory of those who live"
    for session in (alive, other):
        session.close()
    assert regions_of(served) <= before


def test_a_host_without_room_for_a_batch_is_out_of_memory_and_not_a_crash(served: Served) -> None:
    """Memory that is only promised would end the process at the first byte beyond what the host has."""
    with InferenceServerClient(served.state.grpc_url) as client:
        pool = SharedMemoryPool.open(client)
        assert pool is not None
        host = os.statvfs("/dev/shm")
        assert code_of(lambda: pool.lease(host.f_blocks * host.f_frsize + 1)) == "out_of_memory"
        region = pool.lease(1)
        region.write(0, np.ones(1, np.uint8))
        pool.give_back(region)
        pool.close()
    assert own_names() == []


class StandIn(InferenceServerClient):
    """SIMULATED: when the real server lets go cannot be chosen. Refuses `refusals` times to unregister a region."""

    def __init__(self, refusals: int = 0, status: str = "INTERNAL") -> None:
        super().__init__("127.0.0.1:1")  # never called: every method in use is below
        self.refusals, self.status = refusals, status
        self.regions: set[str] = set()
        self.asked = 0

    def register_system_shared_memory(self, name: str, *_: object, **__: object) -> None:
        self.regions.add(name)

    def unregister_system_shared_memory(self, name: str = "", *_: object, **__: object) -> None:
        self.asked += 1
        if self.refusals:
            self.refusals -= 1
            raise InferenceServerException(f"Cannot unregister '{name}'.", f"StatusCode.{self.status}")
        self.regions.remove(name)


def pool_with_two_regions(client: StandIn) -> SharedMemoryPool:
    pool = SharedMemoryPool(client, reclaims=True)
    for region in [pool.lease(10), pool.lease(10)]:
        pool.give_back(region)
    assert len(client.regions) == 2
    return pool


@pytest.mark.parametrize("refusals", [0, 1, 3])
def test_closing_waits_until_the_server_lets_go(refusals: int) -> None:
    """It answers a request before it gives up the request's memory."""
    client = StandIn(refusals)
    pool_with_two_regions(client).close()
    assert client.regions == set()


def test_closing_waits_for_what_was_abandoned_too() -> None:
    client = StandIn(1)
    pool = SharedMemoryPool(client, reclaims=True)
    pool.abandon(pool.lease(10))
    pool.close()
    assert client.regions == set()


def test_closing_does_not_wait_for_a_server_that_is_gone() -> None:
    client = StandIn(1000, "UNAVAILABLE")
    pool_with_two_regions(client).close()
    assert client.asked == 1


def test_what_the_server_holds_for_longer_is_given_up_with_the_next_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_SETTLE_S", 0.0)
    client = StandIn(1)
    pool = SharedMemoryPool(client, reclaims=True)
    late = pool.lease(10)
    pool.abandon(late)
    pool.close()
    assert client.regions == {late.name}
    following = pool.lease(10)
    assert client.regions == {following.name}
    pool.give_back(following)
    pool.close()
    assert client.regions == set()


def test_an_old_server_is_not_asked_for_what_it_may_be_using() -> None:
    """It would unmap the memory under the inference, and die of it."""
    client = StandIn()
    pool = SharedMemoryPool(client, reclaims=False)
    late = pool.lease(10)
    pool.abandon(late)
    pool.give_back(pool.lease(10))
    pool.close()
    assert client.regions == {late.name}
