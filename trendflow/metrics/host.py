"""Metrics of the host and of this process, from what Linux says in /proc."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from trendflow.metrics.process import ProcessMetrics

_KIB = 1024


def this_process() -> Iterator[int]:
    """The ids of this process and of the children that live, theirs included."""
    yield from _family(os.getpid())


def this_process_and_its_parent() -> Iterator[int]:
    """The same with the process that started this one: the two of a worker."""
    yield os.getppid()
    yield from this_process()


class HostMetrics:
    """`folders` are those whose disks matter, by the name they get in the label; `processes` share `worker_id`."""

    def __init__(
        self,
        metrics: ProcessMetrics,
        folders: dict[str, Path],
        worker_id: str = "api",
        processes: Callable[[], Iterator[int]] = this_process,
    ) -> None:
        self._metrics, self._folders, self._worker_id, self._processes = metrics, folders, worker_id, processes
        self._cpu = _cpu_times()

    def refresh(self) -> None:
        busy, total = _cpu_times()
        elapsed = total - self._cpu[1]
        if elapsed > 0:
            self._metrics.cpu_usage.set((busy - self._cpu[0]) / elapsed)
        self._cpu = busy, total
        self._metrics.load1.set(os.getloadavg()[0])
        self._metrics.cpus.set(os.cpu_count() or 1)
        self._metrics.memory_available.set(_bytes("/proc/meminfo", "MemAvailable"))
        resident = sum(_bytes(f"/proc/{process}/status", "VmRSS") for process in self._processes())
        self._metrics.memory.labels(self._worker_id).set(resident)
        for name, folder in self._folders.items():
            self._metrics.disk_free.labels(name).set(shutil.disk_usage(folder).free)


def _cpu_times() -> tuple[int, int]:
    """Busy and all ticks of all CPUs since the start of the system."""
    first = Path("/proc/stat").read_text().splitlines()[0]
    ticks = [int(value) for value in first.split()[1:9]]  # guest time is part of user time already
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _family(process: int) -> Iterator[int]:
    yield process
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:  # the thread has ended since it was listed
            continue
        for child in found:
            yield from _family(int(child))


def _bytes(file: str, name: str) -> int:
    """A counter that the kernel tells in KiB; 0 of a process that has ended meanwhile or ends now."""
    try:
        lines = Path(file).read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    line = next((line for line in lines if line.startswith(f"{name}:")), None)
    return 0 if line is None else int(line.split()[1]) * _KIB
