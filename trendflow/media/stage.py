"""A worker thread that takes items from a bounded queue, in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
_DEPTH = 12


class Stage(Generic[T]):
    """Runs `work(item)` in its own thread so that scaling and measuring overlap with decoding.

    The queue is short: it evens out jitter and bounds the number of decoded frames alive. An error of the worker is
    raised by the next `put` or by `close`.
    """

    def __init__(self, name: str, work: Callable[[T], None]) -> None:
        self._queue: queue.Queue[T | None] = queue.Queue(_DEPTH)
        self._error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError as exc:
            # All that Python says when the system refuses a thread; under the child's limits it is memory that lacks.
            raise MemoryError("There is no memory for another thread.") from exc

    def put(self, item: T) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(item)

    def close(self) -> None:
        """Finish everything queued; raises the worker's error."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue  # keep draining, so that the producer never blocks on a dead worker
            try:
                self._work(item)
            except BaseException as exc:  # handed to the producer
                self._error = exc
