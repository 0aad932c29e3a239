"""Giving memory back to a server that answers a request before it lets go of the request's memory.

The server here is a stand-in: when the real one lets go cannot be chosen. test_runtime.py uses the real one.
"""

from __future__ import annotations

import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from trendflow.models.triton.shared_memory import SharedMemoryPool


class SlowToLetGo(InferenceServerClient):
    """Refuses `refusals` times to unregister a region, as the server does for one that a request still holds."""

    def __init__(self, refusals: int) -> None:
        super().__init__("127.0.0.1:1")  # never called: every method in use is below
        self.refusals = refusals
        self.regions: set[str] = set()

    def register_system_shared_memory(self, name: str, *_: object, **__: object) -> None:
        self.regions.add(name)

    def unregister_system_shared_memory(self, name: str = "", *_: object, **__: object) -> None:
        if self.refusals:
            self.refusals -= 1
            raise InferenceServerException(f"Cannot unregister '{name}', it is in use.", "StatusCode.INTERNAL")
        self.regions.remove(name)


@pytest.mark.parametrize("refusals", [0, 1, 3])
def test_closing_waits_until_the_server_lets_go(refusals: int) -> None:
    client = SlowToLetGo(refusals)
    pool = SharedMemoryPool(client, reclaims=True)
    first, second = pool.lease(10), pool.lease(10)
    pool.give_back(first)
    pool.give_back(second)
    assert client.regions == {first.name, second.name}
    pool.close()
    assert client.regions == set()


def test_what_the_server_holds_for_longer_is_given_up_with_the_next_region() -> None:
    client = SlowToLetGo(1)
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
