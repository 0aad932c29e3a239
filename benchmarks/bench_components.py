"""What every component costs on one video: its function alone, models loaded and inputs at hand.

Memory is what this process and its media child hold at most while the function runs. It begins with what earlier steps
left (models, results) and counts pages of mapped frames, so the growth says more of a component than the peak.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import psutil

from benchmarks.common import SAMPLE, Row, large_video
from benchmarks.pipeline import DirectRun, submit, temporary_deployment
from trendflow.media import worker
from trendflow.orchestration.deployment import Deployment

REPEATS = 2
INTERVAL_S = 0.01


class PeakMemory:
    """Samples the resident bytes of this process and of those it has started; `start` and `peak` in bytes."""

    def __enter__(self) -> PeakMemory:
        own = psutil.Process()
        self._members = [own, *own.children(recursive=True)]
        self.start = self.peak = self._resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, self._resident())

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self.peak = max(self.peak, self._resident())

    def _resident(self) -> int:
        return sum(member.memory_info().rss for member in self._members if member.is_running())


@dataclass(frozen=True)
class Cost:
    seconds: float
    peak: int
    growth: int


def costs(deployment: Deployment, video: Path) -> tuple[dict[str, Cost], float]:
    """Cost of every step on `video`, and the duration of the video in seconds."""
    with tempfile.TemporaryDirectory(dir=deployment.settings.home) as scratch:
        direct = DirectRun(submit(deployment, video), Path(scratch))
        found: dict[str, Cost] = {}
        for name in direct.steps:
            work = direct.prepare(name)
            with PeakMemory() as memory:
                start = time.perf_counter()
                direct.done[name] = work()
                seconds = time.perf_counter() - start
            found[name] = Cost(seconds, memory.peak, memory.peak - memory.start)
        return found, direct.duration_s


def measure() -> list[Row]:
    video = large_video("big_buck_bunny_480p_30s.mp4") or SAMPLE
    worker.warm_up()
    with temporary_deployment() as deployment:
        costs(deployment, SAMPLE)  # loads the models and finishes lazy imports
        turns = [costs(deployment, video) for _ in range(REPEATS)]
    duration_s = turns[0][1]
    seconds = {name: statistics.median(found[name].seconds for found, _ in turns) for name in turns[0][0]}
    total = sum(seconds.values())

    def row(name: str) -> Row:
        peak = max(found[name].peak for found, _ in turns)
        growth = max(found[name].growth for found, _ in turns)
        note = f"{seconds[name] / total:.1%} of {total:.1f} s, peak {peak / 1e6:.0f} MB (+{growth / 1e6:.0f})"
        return Row(name, video.name, 1e3 * seconds[name] / duration_s, "ms per s of video", note=note)

    rows = sorted(map(row, seconds), key=lambda found: -found.value)
    return [*rows, Row("all components", video.name, 1e3 * total / duration_s, "ms per s of video")]
