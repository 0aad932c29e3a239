"""Sequential batches over the assigned frames: each frame is read once, and the stages are timed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from trendflow.components.base import ComponentInputs, FrameSamples

T = TypeVar("T")


class StageTimer:
    """Adds up wall-clock milliseconds per stage."""

    def __init__(self) -> None:
        self._total: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._total[name] += (time.perf_counter() - started) * 1000

    def timings_ms(self) -> dict[str, float]:
        return {name: round(total, 3) for name, total in self._total.items()}


def over_frames(
    inputs: ComponentInputs,
    samples: FrameSamples,
    work: Callable[[np.ndarray], T],
    max_batch: int,
    timer: StageTimer,
) -> list[T]:
    """Call `work(frames uint8 [n, H, W, 3])` over all samples, in order.

    The batch size is the runner's; an out-of-memory failure repeats only the unfinished batch, smaller.
    """

    def step(start: int, stop: int) -> T:
        with timer.stage("read"):
            frames = samples.read(start, stop)
        result = work(frames)
        inputs.progress(stop, len(samples))
        return result

    return inputs.runner.run(len(samples), step, max_batch)
