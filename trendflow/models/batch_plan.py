"""How many units fit a device at once: the memory model of batches."""

from __future__ import annotations

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.device import DeviceMemory

MIN_HEADROOM_MB = 1024.0
HEADROOM_SHARE = 0.25
"""Share of the free memory that a plan leaves to fragmentation, to kernels' work space and to neighbours that grow."""


def planned_batch(memory: DeviceMemory, per_task_mb: float, *maxima: int) -> int:
    """The batch for a model that needs `per_task_mb` for each unit of it: at least 1, at most each of `maxima`.

    Memory that others use now makes batches small, not an error: it may be free by the time it is needed, and running
    out is handled where it happens. Raises `insufficient_gpu_memory` when not even an empty device could hold one unit.
    """
    if per_task_mb > memory.total_mb:
        raise TrendFlowError(
            "insufficient_gpu_memory",
            f"A unit needs {per_task_mb:.0f} MB; the device has {memory.total_mb:.0f} MB in all.",
            needed_mb=per_task_mb,
            total_mb=memory.total_mb,
        )
    largest = min(maxima)
    if per_task_mb <= 0:
        return max(1, largest)
    budget = memory.free_mb - max(MIN_HEADROOM_MB, HEADROOM_SHARE * memory.free_mb)
    return max(1, min(int(budget // per_task_mb), largest))
