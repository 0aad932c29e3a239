"""What a worker does with a message: the whole run, inside its own warm process."""

from __future__ import annotations

import contextvars
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from celery import Celery
from celery.exceptions import Reject
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.events import JobFailureData
from dagster._grpc.types import ExecuteRunArgs, ResumeRunArgs
from dagster._serdes import pack_value
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.database_errors import database_error
from trendflow.orchestration.queue.board import Board
from trendflow.orchestration.queue.child import CurrentRun
from trendflow.orchestration.queue.names import ERROR_CODE_TAG, MAX_DELIVERIES, WORKER_TAG, Rhythm

log = logging.getLogger(__name__)

T = TypeVar("T")

_BROKER_WAIT_S = 1.0
_DATABASE_WAIT_S = 15.0
_HOLDER_WAIT_S = 1.0
_READY_WAIT_S = 5.0


class RunTask:
    """Executes runs by their id, one after the other.

    `wait` pauses for seconds. `require_ready` raises a transient error while this worker should not begin the run.
    """

    def __init__(
        self,
        app: Celery,
        board: Board,
        worker: str,
        rhythm: Rhythm,
        wait: Callable[[float], object],
        require_ready: Callable[[DagsterRun], object],
        current: CurrentRun,
    ) -> None:
        self._board, self._worker, self._rhythm, self._current = board, worker, rhythm, current
        self._wait, self._require_ready = wait, require_ready
        # dagster-celery's own tasks do the work; as functions, for they cannot tell a new delivery from a repeated one.
        self._execute = create_execute_job_task(app)
        self._resume = create_resume_job_task(app)

    def __call__(self, run_id: str) -> None:
        """Bring the run to its end. Raises `Reject` when it has not come to one: the message then goes back.

        A run that has ended already costs one look into the database; one that comes for the fourth time fails with
        `internal_error` and goes to the dead-letter list.
        """
        try:
            self._try(run_id)
        except Reject:
            # Whoever takes the message next must not wait for this worker, which may never see it again.
            self._current.set(None)
            self._broker(lambda: self._board.let_go(run_id, self._worker))
            raise

    def _try(self, run_id: str) -> None:
        try:
            # What a run that is let go of said of itself must not be said of the next one.
            contextvars.copy_context().run(self._deliver, run_id)
        except Reject:
            raise
        except Exception as exc:
            # Whatever it was, the message must not vanish with it; it cannot go round for ever, deliveries are counted.
            failed = database_error(exc)
            if failed is None:
                log.exception("run %s goes back", run_id)
                raise Reject(type(exc).__name__, requeue=True) from exc
            # Nothing can be done or recorded without the database, by no worker; this try does not count.
            log.warning("the database does not answer (%s); run %s goes back", type(failed).__name__, run_id)
            self._broker(lambda: self._board.uncount(run_id, self._worker))
            self._wait(_DATABASE_WAIT_S)
            raise Reject("database", requeue=True) from exc

    def _deliver(self, run_id: str) -> None:
        delivery = self._claim(run_id)
        self._current.set(run_id)
        with DagsterInstance.get() as instance:
            run = self._wanted(instance, run_id)
            if run is None or run.is_finished:
                log.info("run %s has ended before; nothing to do", run_id)
            elif run.status == DagsterRunStatus.CANCELING:
                instance.report_run_canceled(run)
            elif delivery > MAX_DELIVERIES:
                self._give_up(instance, run, delivery - 1)
            else:
                instance.add_run_tags(run_id, {WORKER_TAG: self._worker})
                self._work(instance, run)
                after = instance.get_run_by_id(run_id)
                if after is not None and not after.is_finished:
                    raise Reject("the run did not end", requeue=True)
        self._current.set(None)
        self._broker(lambda: self._board.release(run_id))

    def _claim(self, run_id: str) -> int:
        """The number of this delivery, once nobody else works on the run.

        Two messages of one run exist when the transport gave back what was still being worked on. This worker waits:
        if the other one dies, the run is here already.
        """
        while True:
            claim = self._broker(lambda: self._board.claim(run_id, self._worker))
            if claim.holder is None:
                return claim.delivery
            log.info("run %s is held by %s", run_id, claim.holder)
            self._wait(_HOLDER_WAIT_S)

    def _wanted(self, instance: DagsterInstance, run_id: str) -> DagsterRun | None:
        """The run, once it can be worked on or need not be any more.

        While the store or the model server is away every run would fail of it at once, and the queue would empty itself
        into errors.
        """
        while True:
            run = instance.get_run_by_id(run_id)
            if run is None or run.is_finished or run.status == DagsterRunStatus.CANCELING:
                return run
            try:
                self._require_ready(run)
            except TrendFlowError as error:
                if error.error_class == "transient":
                    log.warning("run %s waits: %s", run_id, error)
                    self._wait(_READY_WAIT_S)
                    continue
                log.warning("run %s is begun and will fail: %s", run_id, error)
            return run

    def _work(self, instance: DagsterInstance, run: DagsterRun) -> None:
        begun = run.status == DagsterRunStatus.STARTED
        if run.job_code_origin is None:
            raise TrendFlowError("config_invalid", "The run does not say where its code is.", run=run.run_id)
        args = (ResumeRunArgs if begun else ExecuteRunArgs)(
            job_origin=run.job_code_origin,
            run_id=run.run_id,
            instance_ref=None,  # the worker has its own
            set_exit_code_on_failure=True,
        )
        if begun:
            instance.report_engine_event(f"Taken up again by worker {self._worker}.", run)
        with _cancelled_from_outside(instance, run.run_id, self._rhythm.cancel_look_s):
            (self._resume if begun else self._execute).run(pack_value(args))

    def _give_up(self, instance: DagsterInstance, run: DagsterRun, deliveries: int) -> None:
        error = TrendFlowError(
            "internal_error", f"The run was delivered {deliveries} times and never came to an end.", run=run.run_id
        )
        log.error("run %s: %s", run.run_id, error)
        instance.add_run_tags(run.run_id, {ERROR_CODE_TAG: error.error_code})
        instance.report_run_failed(run, str(error), JobFailureData(error=None))
        self._broker(lambda: self._board.bury(run.run_id, error.error_code, deliveries))

    def _broker(self, ask: Callable[[], T]) -> T:
        """The broker's answer, however long it is away: without it the message cannot be settled either."""
        while True:
            try:
                return ask()
            except TrendFlowError as error:
                if error.error_code != "storage_unavailable":
                    raise
                log.warning("the broker does not answer")
                self._wait(_BROKER_WAIT_S)


@contextmanager
def _cancelled_from_outside(instance: DagsterInstance, run_id: str, look_s: float) -> Iterator[None]:
    """Interrupts this process, as Ctrl-C would, once somebody asked Dagster to cancel the run.

    Repeated until the run stops: an interrupt between two steps meets nobody who listens.
    """
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(look_s):
            try:
                run = instance.get_run_by_id(run_id)
            except Exception as exc:  # whatever it was, the next look may say more, and the run goes on
                log.warning("cannot see whether run %s is cancelled: %s", run_id, type(exc).__name__)
                continue
            if run is not None and run.status == DagsterRunStatus.CANCELING and not ended.is_set():
                os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=watch, name="cancellation", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
