"""The thread of a worker's main process that sees to it that an orderly end is no failed delivery."""

from __future__ import annotations

import logging
import queue
import threading

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.queue.board import Board
from trendflow.orchestration.queue.names import Rhythm

log = logging.getLogger(__name__)


class Farewell:
    """From the beginning of this worker's end on, the deliveries of the runs that it holds do not count.

    Whoever ends a worker kills it in the end when its run takes longer, and the run goes on elsewhere. Counted, it
    would be given up after a few restarts, though nothing is wrong with it.
    """

    def __init__(self, board: Board, worker: str, rhythm: Rhythm) -> None:
        self._board, self._worker, self._rhythm = board, worker, rhythm
        # Of all ways to tell a thread something, the one that a handler of signals may use.
        self._is_leaving: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="farewell", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def begin(self, **_: object) -> None:
        """The worker was asked to end; a handler of Celery's `worker_shutting_down`."""
        self._is_leaving.put(True)

    def stop(self) -> None:
        """The worker has ended."""
        self._is_leaving.put(False)
        self._thread.join()

    def _run(self) -> None:
        is_leaving, uncounted = self._is_leaving.get(), set[str]()
        while is_leaving:
            # Looked for again: a message that was taken before may be begun only now.
            try:
                held = {run for run, holder in self._board.running().items() if holder == self._worker}
                for run in held - uncounted:
                    log.info("the delivery of run %s does not count, for this worker ends", run)
                    self._board.uncount(run, self._worker)
                    uncounted.add(run)
            except TrendFlowError as error:
                log.warning("the broker does not answer (%s); deliveries are uncounted later", error.error_code)
            try:
                is_leaving = self._is_leaving.get(timeout=self._rhythm.look_s)
            except queue.Empty:
                continue
