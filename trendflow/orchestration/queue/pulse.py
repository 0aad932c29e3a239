"""The thread of a worker's main process that says that the worker lives, and looks after the others."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

from kombu.exceptions import OperationalError
from redis import RedisError

from trendflow.contracts.errors import ERROR_RULES, TrendFlowError
from trendflow.orchestration.queue.board import Board, WorkerFacts
from trendflow.orchestration.queue.names import Rhythm
from trendflow.orchestration.queue.run_health import RunHealth

log = logging.getLogger(__name__)


def end_at_once() -> None:
    """End a worker whose runs belong to others by now. Its supervisor starts a new one.

    Its child dies with it, busy or not: Celery has the kernel see to that.
    """
    os._exit(ERROR_RULES["internal_error"].exit_code)


class Pulse:
    """Beats until it is stopped: also while the worker waits for its last run to end, when Celery's own timers rest."""

    def __init__(
        self,
        board: Board,
        facts: Callable[[], WorkerFacts],
        health: RunHealth,
        rhythm: Rhythm,
        on_given_up: Callable[[], None] = end_at_once,
    ) -> None:
        self._board, self._facts, self._health, self._rhythm = board, facts, health, rhythm
        self._on_given_up = on_given_up
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """The first beat comes before this returns, so that no message is taken by somebody unknown.

        Raises `storage_unavailable` when the broker does not answer.
        """
        self._board.beat(self._facts())
        self._thread.start()

    def stop(self) -> None:
        """Leave in good order."""
        self._stop.set()
        self._thread.join()
        try:
            self._board.leave(self._facts().worker)
        except TrendFlowError:
            log.warning("the broker does not answer; it will find out that this worker has ended")

    def _run(self) -> None:
        beat_at = time.monotonic() + self._rhythm.beat_s
        look_at = time.monotonic() + self._rhythm.look_s
        answers = True
        while not self._stop.wait(max(0.0, min(beat_at, look_at) - time.monotonic())):
            try:
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + self._rhythm.beat_s
                    if not self._board.beat(self._facts()):
                        log.critical("this worker was silent and is given up; it ends")
                        self._on_given_up()
                        return
                if time.monotonic() >= look_at:
                    look_at = time.monotonic() + self._rhythm.look_s
                    self._health.look()
                if not answers:
                    log.warning("the broker answers again")
                answers = True
            except (TrendFlowError, OperationalError, RedisError, OSError) as exc:
                if answers:
                    log.warning("the broker does not answer (%s); the next beat tries again", type(exc).__name__)
                answers = False
            except Exception:  # a worker whose pulse has ended takes messages and never learns that it was given up
                log.exception("something went wrong in the pulse; the next beat tries again")
