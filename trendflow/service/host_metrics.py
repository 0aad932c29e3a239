"""Metrics of the host and of this process, from what Linux says in /proc."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from trendflow.service.metrics import Metrics

_KIB = 1024


class HostMetrics:
    """`folders` are those whose disks matter, by the name they get in the label."""

    def __init__(self, metrics: Metrics, folders: dict[str, Path], worker_id: str = "api") -> None:
        self._metrics, self._folders, self._worker_id = metrics, folders, worker_id
        self._cpu = _cpu_times()

    def refresh(self) -> None:
        busy, total = _cpu_times()
        elapsed = total - self._cpu[1]
        if elapsed > 0:
            self._metrics.cpu_usage.set((busy - self._cpu[0]) / elapsed)
        self._cpu = busy, total
        self._metrics.load1.set(os.getloadavg()[0])
        self._metrics.cpus.set(os.cpu_count() or 1)
        self._metrics.memory_available.set(_kib("/proc/meminfo", "MemAvailable"))
        self._metrics.memory.labels(self._worker_id).set(_kib("/proc/self/status", "VmRSS"))
        for name, folder in self._folders.items():
            self._metrics.disk_free.labels(name).set(shutil.disk_usage(folder).free)


def _cpu_times() -> tuple[int, int]:
    """Busy and all ticks of all CPUs since the start of the system."""
    first = Path("/proc/stat").read_text().splitlines()[0]
    ticks = [int(value) for value in first.split()[1:9]]  # guest time is part of user time already
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _kib(file: str, name: str) -> int:
    lines = Path(file).read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * _KIB
