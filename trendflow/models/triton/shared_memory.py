"""Shared memory with a Triton server on the same host: tensors cross by reference instead of through a socket.

A region's name is unlinked as soon as both sides have it open. The kernel then frees it with its last user, so that no
crash of either side leaves anything behind in /dev/shm.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from trendflow.contracts.errors import TrendFlowError
from trendflow.processes import started_ticks_of

_SMALLEST = 1 << 16
_CALL_TIMEOUT_S = 5.0
_SETTLE_S = 2.0
"""How long closing waits for a server to let go: it answers first and gives up a request's memory afterwards."""
_SETTLE_STEP_S = 0.005
_ALIGNMENT = 64
_FOLDER = Path("/dev/shm")
_OWNER = re.compile(r"trendflow-(?P<namespace>\d+)-(?P<pid>\d+)-(?P<ticks>\d+)-")
_REFUSES_WHAT_IS_IN_USE = (2, 51)
"""The release of Triton that was seen to refuse unregistering memory of a running inference; older ones may crash."""


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
    """Regions registered with one server, reused from request to request. Thread-safe.

    `reclaims` says whether the server can be asked to give up a region that it may still be using.
    """

    def __init__(self, client: InferenceServerClient, reclaims: bool) -> None:
        self._client = client
        self._reclaims = reclaims
        self._free: list[Region] = []
        self._abandoned: list[str] = []
        self._lock = threading.Lock()
        self._prefix = (
            f"trendflow-{_process_namespace()}-{os.getpid()}-{started_ticks_of(os.getpid())}-{uuid.uuid4().hex[:8]}"
        )
        self._count = 0

    @classmethod
    def open(cls, client: InferenceServerClient) -> SharedMemoryPool | None:
        """A pool, or None when the server cannot map this process's memory (another host, a container)."""
        try:
            version = client.get_server_metadata(client_timeout=_CALL_TIMEOUT_S).version
            pool = cls(client, _release(version) >= _REFUSES_WHAT_IS_IN_USE)
            pool.give_back(pool.lease(_SMALLEST))
            pool._clear_after_dead_clients()
        except (InferenceServerException, OSError, TrendFlowError):
            return None
        return pool

    def lease(self, size: int) -> Region:
        """A region of at least `size` bytes that nobody else uses.

        Raises `InferenceServerException`, OSError, and `out_of_memory` when the host has no room for it: a smaller
        batch may fit.
        """
        with self._lock:
            fitting = [region for region in self._free if region.size >= size]
            if fitting:
                best = min(fitting, key=lambda region: region.size)
                self._free.remove(best)
                return best
            self._count += 1
            name = f"{self._prefix}-{self._count}"
        self._keep(self._unregister(self._reclaimable()))
        # Powers of two, so that batches of similar size find each other's regions.
        memory = self._allocate(name, 1 << (max(size, _SMALLEST) - 1).bit_length())
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

    def abandon(self, region: Region) -> None:
        """The server may still write into the region: it is not used again, and given up when the server is done.

        Unmapping memory under a running inference would bring an old server down; that keeps it until it ends.
        """
        with suppress(BufferError):  # an interrupted writer still looks at it, and closes it when it goes
            region.memory.close()
        with self._lock:
            self._abandoned.append(region.name)

    def close(self) -> None:
        """Unregister all regions. What the server still computes with when it had its time stays with the server.

        A server that is gone has forgotten them already.
        """
        in_use = self._drop_unused()
        end = time.monotonic() + _SETTLE_S
        while in_use and time.monotonic() < end:
            time.sleep(_SETTLE_STEP_S)  # the server has no call that waits for it
            in_use = self._unregister(in_use)
        self._keep(in_use)

    def _drop_unused(self) -> list[str]:
        """Unregister what no request needs; returns what the server still uses, which the caller keeps."""
        with self._lock:
            regions, self._free = self._free, []
        for region in regions:
            region.memory.close()
        return self._unregister([*(region.name for region in regions), *self._reclaimable()])

    def _allocate(self, name: str, size: int) -> SharedMemory:
        try:
            return _allocated(name, size)
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
        self._keep(self._drop_unused())  # what is free here is of other sizes
        try:
            return _allocated(name, size)
        except OSError as exc:
            raise TrendFlowError(
                "out_of_memory", f"The shared memory of this host, {_FOLDER}, has no room for a batch.", bytes=size
            ) from exc

    def _reclaimable(self) -> list[str]:
        """What was abandoned and may be asked for; the caller keeps what it does not get."""
        if not self._reclaims:
            return []
        with self._lock:
            names, self._abandoned = self._abandoned, []
        return names

    def _keep(self, names: list[str]) -> None:
        """To be asked for again."""
        with self._lock:
            self._abandoned += names

    def _clear_after_dead_clients(self) -> None:
        """A client that was killed could not take its regions back, and the server would keep them until it ends."""
        if not self._reclaims:
            return
        status = self._client.get_system_shared_memory_status(client_timeout=_CALL_TIMEOUT_S)
        self._unregister([name for name in status.regions if _is_of_dead_process(name)])

    def _unregister(self, names: list[str]) -> list[str]:
        """Unregister regions; returns those the server still uses. Where nobody answers, the rest is kept for later."""
        in_use: list[str] = []
        for index, name in enumerate(names):
            try:
                self._client.unregister_system_shared_memory(name, client_timeout=_CALL_TIMEOUT_S)
            except InferenceServerException as exc:
                if exc.status() != "StatusCode.INTERNAL":  # the others would wait for nothing
                    self._keep(names[index:])
                    break
                in_use.append(name)
        return in_use


def _allocated(name: str, size: int) -> SharedMemory:
    """Memory that exists: without asking for it, writing beyond what the host has would kill this process."""
    memory = SharedMemory(name, create=True, size=size)
    try:
        handle = os.open(_FOLDER / name, os.O_RDWR)
        try:
            os.posix_fallocate(handle, 0, size)
        finally:
            os.close(handle)
    except BaseException:
        memory.close()
        memory.unlink()
        raise
    return memory


def _process_namespace() -> int:
    """Process ids mean the same within one of these, such as a container."""
    return os.stat("/proc/self/ns/pid").st_ino


def _is_of_dead_process(region: str) -> bool:
    owner = _OWNER.match(region)
    if owner is None or int(owner["namespace"]) != _process_namespace():
        return False
    return started_ticks_of(int(owner["pid"])) != int(owner["ticks"])


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
