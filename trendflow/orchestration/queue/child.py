"""The process of a worker that executes runs: when it has to end, and what the main process sees of its work."""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

from dagster import DagsterInstance, DagsterRun

from trendflow.contracts.errors import ERROR_RULES
from trendflow.orchestration.queue.names import WORKER_TAG

log = logging.getLogger(__name__)

_ID_BYTES = 36


def end_now() -> None:
    """End this process without a word to anybody: whatever it was at belongs to others by now."""
    logging.shutdown()
    os._exit(ERROR_RULES["internal_error"].exit_code)


@contextmanager
def leaving_to_successor(instance: DagsterInstance, run: DagsterRun) -> Iterator[None]:
    """End this process where the block fails and another worker has the same Dagster run by now.

    That happens to a worker that was given up though it lived. Its failure would end the run of the other one.
    """
    try:
        yield
    except BaseException:  # whatever it is, Dagster would take it for the end of the run
        if _has_successor(instance, run):
            log.warning("another worker has the run %s; this process ends", run.run_id)
            end_now()
        raise


def _has_successor(instance: DagsterInstance, run: DagsterRun) -> bool:
    mine = run.tags.get(WORKER_TAG)
    if mine is None:
        return False  # no worker executes it
    try:
        now = instance.get_run_by_id(run.run_id)
    except Exception as exc:  # of any database; what the block raised is what matters
        log.warning("cannot see who has the run %s: %s", run.run_id, type(exc).__name__)
        return False
    return now is not None and now.tags.get(WORKER_TAG) != mine


class CurrentRun:
    """The run that the child is the holder of, in memory that it shares with its parent. To be made before the fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _ID_BYTES)

    def set(self, run_id: str | None) -> None:
        """The child has the run, or none."""
        self._memory[:] = b"\0" * _ID_BYTES
        if run_id is not None:
            self._memory[:] = run_id.encode().ljust(_ID_BYTES)[:_ID_BYTES]

    def get(self) -> str | None:
        """None also while it is being written."""
        data = bytes(self._memory)
        return None if b"\0" in data else data.decode().rstrip()
