"""Micro-batching with the out-of-memory policy: smaller batches, never less data and never another device."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trendflow.contracts.errors import TrendFlowError, as_typed

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class BatchRunner:
    """Runs a function over slices of `n` units and remembers how it went.

    After an `out_of_memory` at batch b it continues, from the first unfinished unit, with ⌊b/2⌋, ⌊b/4⌋ and 1
    (repeats skipped), `pause_s` seconds later. A failure at batch 1 is final. Finished units are kept.

    A runner serves one component of one video: no batch it forms mixes videos. `gpu_memory_mb` tells what this process
    holds of the device, None when nobody knows. `on_reduced` is told the batch that did not fit and the next one.
    """

    batch_size: int = 8
    pause_s: float = 2.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)
    gpu_memory_mb: Callable[[], float | None] | None = field(default=None, repr=False, compare=False)
    on_reduced: Callable[[int, int], None] | None = field(default=None, repr=False, compare=False)
    oom_retries: int = 0
    effective_batch_size: int | None = None
    """The largest batch that was run after the last reduction, of the smallest `run`; None before the first."""
    attempts: list[dict[str, int]] = field(default_factory=list)
    """Every batch that did not fit: its size and its first unit."""
    gpu_mem_peak_mb: float | None = None
    """The most this process held of the device after any batch: engines keep what they once allocated."""

    def run(self, units: int, work: Callable[[int, int], T], max_batch: int) -> list[T]:
        """Call `work(start, stop)` until all units are done; returns its results in order."""
        size = max(1, min(self.batch_size, max_batch))
        ladder = list(dict.fromkeys((size, max(1, size // 2), max(1, size // 4), 1)))
        results: list[T] = []
        start = 0
        while start < units:
            stop = min(units, start + ladder[0])
            # The last slice may be smaller than the batch; what fails is the slice.
            smaller = [step for step in ladder if step < stop - start]
            try:
                results.append(work(start, stop))
            except (TrendFlowError, MemoryError) as exc:  # frames and their preparation need memory as well
                out_of_memory = as_typed(exc).error_code == "out_of_memory"
                if out_of_memory:
                    self.attempts.append({"batch": stop - start, "unit": start})
                if not (out_of_memory and smaller):
                    raise
            else:
                self._note_memory()
                start = stop
                continue
            # Only here is the exception gone, and with its frames the batch that did not fit.
            self.oom_retries += 1
            ladder = smaller
            log.warning("out of memory at batch %d; continuing with batch %d", stop - start, ladder[0])
            if self.on_reduced is not None:
                self.on_reduced(stop - start, ladder[0])
            gc.collect()
            self.sleep(self.pause_s)  # memory held by a neighbour may become free
        if units:
            size = min(ladder[0], units)
            self.effective_batch_size = min(self.effective_batch_size or size, size)
        return results

    def _note_memory(self) -> None:
        held = None if self.gpu_memory_mb is None else self.gpu_memory_mb()
        if held is not None:
            self.gpu_mem_peak_mb = max(held, self.gpu_mem_peak_mb or 0.0)

    def record(self, retries: int = 0) -> dict[str, Any]:
        """The `batching` record of meta and manifest; `retries` are those of the whole component."""
        return {
            "effective_batch_size": self.effective_batch_size,
            "retries_total": self.oom_retries + retries,
            "oom_retries": self.oom_retries,
            "queue_wait_ms": None,
            "gpu_mem_peak_mb": self.gpu_mem_peak_mb,
        }
