"""The knobs of this product: what changes how fast runs are, and no result of any."""

from __future__ import annotations

from trendflow.config import AUTO, Settings


def knobs_of(settings: Settings) -> dict[str, int | str]:
    """The knobs of whoever works with these settings, by name; `auto` where they leave it to the machine.

    Which batch size a component came to is measured when it has run.
    """
    return {
        "max_parallel_videos": 1,  # of a worker
        "batch_size": AUTO if settings.batch_size is None else settings.batch_size,
        "onnx_threads": settings.onnx_threads or AUTO,
        "handed_over_runs": settings.handed_over_runs,
    }
