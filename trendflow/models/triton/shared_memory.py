"""Shared memory with a Triton server on the same host: tensors cross by reference instead of through a socket.

A region's name is unlinked as soon as both sides have it open. The kernel then frees it with its last user, so that no
crash of either side leaves anything behind in /dev/shm.
"""

from __future__ import annotations

import os
import threading
import uuid
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory

import numpy as np
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

_SMALLEST = 1 << 16
_CALL_TIMEOUT_S = 5.0
_ALIGNMENT = 64


@dataclass(frozen=True)
class Region:
    """A piece of memory that both sides have mapped; `name` is what requests call it."""

    name: str
    memory: SharedMemory

    @property
    def size(self) -> int:
        return self.memory.size

    def write(self, offset: int, array: np.ndarray) -> None:
        view = np.ndarray(array.shape, array.dtype, buffer=self.memory.buf, offset=offset)
        view[...] = array

    def read(self, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A copy: the region goes to another request afterwards."""
        return np.ndarray(shape, dtype, buffer=self.memory.buf, offset=offset).copy()


def layout(sizes: list[int]) -> tuple[list[int], int]:
    """Offsets of consecutive blocks, each aligned for any vector instruction, and the bytes they take in all."""
    offsets, end = [], 0
    for size in sizes:
        offsets.append(end)
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    return offsets, end


class SharedMemoryPool:
    """Regions registered with one server, reused from request to request. Thread-safe."""

    def __init__(self, client: InferenceServerClient) -> None:
        self._client = client
        self._free: list[Region] = []
        self._lock = threading.Lock()
        self._prefix = f"trendflow-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._count = 0

    @classmethod
    def open(cls, client: InferenceServerClient) -> SharedMemoryPool | None:
        """A pool, or None when the server cannot map this process's memory (another host, a container)."""
        pool = cls(client)
        try:
            pool.give_back(pool.lease(_SMALLEST))
        except (InferenceServerException, OSError):
            return None
        return pool

    def lease(self, size: int) -> Region:
        """A region of at least `size` bytes that nobody else uses. Raises `InferenceServerException` and OSError."""
        with self._lock:
            fitting = [region for region in self._free if region.size >= size]
            if fitting:
                best = min(fitting, key=lambda region: region.size)
                self._free.remove(best)
                return best
            self._count += 1
            name = f"{self._prefix}-{self._count}"
        # Powers of two, so that batches of similar size find each other's regions.
        memory = SharedMemory(name, create=True, size=1 << (max(size, _SMALLEST) - 1).bit_length())
        try:
            self._client.register_system_shared_memory(name, f"/{name}", memory.size, client_timeout=_CALL_TIMEOUT_S)
        except BaseException:
            memory.close()
            raise
        finally:
            memory.unlink()
        return Region(name, memory)

    def give_back(self, region: Region) -> None:
        """The server is done with the region."""
        with self._lock:
            self._free.append(region)

    @staticmethod
    def abandon(region: Region) -> None:
        """The server may still write into the region: it is neither reused nor unregistered.

        Unmapping memory under a running inference would bring the server down. It keeps the region until it ends.
        """
        region.memory.close()

    def close(self) -> None:
        """Unregister all regions that are not in use. A server that is gone has forgotten them already."""
        with self._lock:
            regions, self._free = self._free, []
        reachable = True
        for region in regions:
            region.memory.close()
            if not reachable:
                continue
            try:
                self._client.unregister_system_shared_memory(region.name, client_timeout=_CALL_TIMEOUT_S)
            except InferenceServerException:
                reachable = False
