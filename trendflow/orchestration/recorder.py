"""What the process that executes a run reports of it, recorded by a thread of its own.

Components do not wait for the journal: a report is handed over at once and recorded in the order of the reports. What
must be known in time is asked for at the boundaries of components and units: whether this process still has the run,
and whether somebody wants it to stop.
"""

from __future__ import annotations

import contextvars
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from trendflow.contracts.errors import TrendFlowError, as_typed
from trendflow.contracts.graph import SEGMENTER
from trendflow.orchestration.work import Origin
from trendflow.state.errors import Fenced
from trendflow.state.run_manager import RunManager
from trendflow.state.transitions import DONE, run_outcome

log = logging.getLogger(__name__)

LOOK_SEC = 2.0
"""How long a run without reports goes on before its log is looked at."""
PROGRESS_SEC = 0.5
"""Progress of a component is handed over at most this often; the journal takes less of it still."""
_WAITS = (1.0, 2.0, 4.0)

Report = Callable[[RunManager], None]


class Halted(BaseException):
    """The execution of the run must stop and store nothing more; `error` tells why.

    `cancelled`: somebody asked for it, or another process has the run (then `error` is a `Fenced`). Any other code: the
    journal takes no more events. No Exception, so that an `except Exception` around a unit does not hold it up.
    """

    def __init__(self, error: TrendFlowError) -> None:
        self.error = error
        super().__init__(str(error))


class Writer:
    """The thread that records the reports of one execution, through the manager that has the run.

    A report that the store does not take is tried again, for no status may be missing in the journal; when that does
    not help, or the report itself is wrong, nothing more is recorded and `check` says so.
    """

    def __init__(self, manager: RunManager) -> None:
        self._manager = manager
        self._reports: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
        self._error: TrendFlowError | None = None
        self._cancel = False
        self._given_up = threading.Event()
        # The thread logs about the run that begins here.
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._record,), name="run-state", daemon=True
        )
        self._thread.start()

    def check(self) -> None:
        """Raise `Halted` when it is known that the run must stop. Costs nothing, so it suits every unit."""
        if self._error is not None:
            raise Halted(self._error)
        if self._cancel:
            raise Halted(TrendFlowError("cancelled", "The run was cancelled."))

    def look(self) -> None:
        """Read what others wrote, in the calling thread, then `check`."""
        self._do(RunManager.follow)
        self.check()

    def put(self, report: Report) -> None:
        self._reports.put(report)

    def finish(self) -> None:
        """Wait until all is recorded, and stop. Raises `Halted` when something was not."""
        self._reports.put(None)
        self._thread.join()
        if self._error is not None:
            raise Halted(self._error)

    def give_up(self) -> None:
        """Stop without recording what is left."""
        self._given_up.set()
        self._reports.put(None)
        self._thread.join()

    def _record(self) -> None:
        while True:
            try:
                report = self._reports.get(timeout=LOOK_SEC)
            except queue.Empty:
                report = _look
            if report is None:
                return
            self._do(report)

    def _do(self, report: Report) -> None:
        for wait in (*_WAITS, None):
            if self._error is not None or self._given_up.is_set():
                return
            try:
                report(self._manager)
                self._cancel = self._manager.cancel_requested
                return
            except Exception as exc:  # whatever it is, the run must end with it instead of going on unrecorded
                error = as_typed(exc)
                if error.error_class != "transient" or wait is None:
                    # Whoever has the run now records it, be it this process, which has noticed that the run is over.
                    level = logging.INFO if isinstance(error, Fenced) else logging.ERROR
                    log.log(level, "the state of the run is not recorded any more: %s", error)
                    self._error = error
                    return
                log.warning("the state of the run cannot be recorded (%s); trying again", error.error_code)
                self._given_up.wait(wait)


class RunRecorder:
    """Takes the reports of one run. They go nowhere unless an execution of the run has begun in this process.

    So whoever computes components outside of one (a comparison, a plan) records nothing and is never halted.
    """

    def __init__(self) -> None:
        self._writer: Writer | None = None
        self._owner = ""
        self._told: dict[str, float] = {}
        self._computed = False
        self._unstored: TrendFlowError | None = None
        self._retries = 0

    @property
    def retries(self) -> int | None:
        """Retries of the run so far, in all attempts: of its components and of its own. None outside an execution."""
        return None if self._writer is None else self._retries

    @property
    def unstored_error(self) -> TrendFlowError | None:
        """Why the store took neither a result nor its error in this execution, None when there was no such result."""
        return self._unstored

    def begin(self, manager: RunManager, owner: str) -> Writer:
        """An execution begins; `manager` has the run. One that was left without an end is given up."""
        if self._writer is not None:
            self._writer.give_up()
        self._writer, self._owner, self._computed, self._unstored = Writer(manager), owner, False, None
        self._told.clear()
        self._retries = int(manager.view.run["retry_count"])
        return self._writer

    def end(self, writer: Writer, error: TrendFlowError | None) -> None:
        """The execution that `begin` gave this writer has ended. Returns when everything is recorded.

        Without `error` the components decide how the run ended, `cancelled` cancels it, any other code fails it. Raises
        `Halted` when that could not be recorded. Nothing happens when another execution began meanwhile.
        """
        if self._writer is not writer:
            return
        self._writer, computed, cause = None, self._computed, self._unstored or error
        writer.put(lambda manager: _end(manager, cause, computed))
        writer.finish()

    def abandon(self, writer: Writer) -> None:
        """The execution ended and may not say so: the run belongs to another process."""
        if self._writer is writer:
            self._writer = None
        writer.give_up()

    def require(self) -> None:
        """Raise `Halted` unless this process still has the run and nobody wants it to stop.

        To be called before something of the run is stored.
        """
        if self._writer is not None:
            self._writer.look()

    def started(self, name: str) -> None:
        """The work of a component begins."""
        self._told[name] = time.monotonic()
        owner = self._owner
        self._report(lambda manager: manager.component_started(name, owner=owner))

    def progress(self, name: str, done: int, total: int) -> None:
        """`done` of `total` units; a boundary at which the work is halted. Raises `Halted`."""
        if self._writer is None:
            return
        self._writer.check()
        now = time.monotonic()
        if total > 0 and (done >= total or now - self._told.get(name, now) >= PROGRESS_SEC):
            self._told[name] = now
            self._report(lambda manager: manager.component_progress(name, done, total))

    def finished(self, row: Mapping[str, Any], origin: Origin) -> None:
        """A component ended as its stored manifest row says."""
        self._computed |= origin in ("computed", "error")
        self._report(lambda manager: _finished(manager, row, origin))

    def unstored(self, name: str, error: TrendFlowError) -> None:
        """The store takes neither the result of a component nor its error. The run ends of it."""
        self._unstored = error
        self._report(lambda manager: manager.component_failed(name, error))

    def skipped(self, name: str, because: str) -> None:
        """A component will not run. What runs at this moment has its end from the end of the run."""

        def report(manager: RunManager) -> None:
            if manager.view.components[name]["status"] != "running":
                manager.component_skipped(name, because)

        self._report(report)

    def retry_scheduled(self, name: str, error_code: str, wait_sec: float) -> None:
        owner = self._owner
        self._retries += 1
        before: list[int] = []

        def report(manager: RunManager) -> None:
            counted = int(manager.view.components[name]["retry_count"])
            before.append(counted)
            if counted > before[0]:
                return  # recorded, though the store failed afterwards: a report may be repeated
            manager.component_started(name, owner=owner)  # an attempt may fail before its work begins
            manager.retry_scheduled(name, error_code, wait_sec)

        self._report(report)

    def oom_reduced(self, name: str, batch_size: int, reduced_to: int) -> None:
        self._report(lambda manager: manager.oom_reduced(name, batch_size, reduced_to))

    def cache_check_failed(self, name: str, error_code: str) -> None:
        self._report(lambda manager: manager.cache_check_failed(name, error_code))

    def costs_recorded(self, rows: int, components: Mapping[str, Mapping[str, Any]]) -> None:
        self._report(lambda manager: manager.costs_recorded(rows, components))

    def _report(self, report: Report) -> None:
        if self._writer is not None:
            self._writer.put(report)


def _look(manager: RunManager) -> None:
    manager.follow()
    manager.checkpoint_if_due()


def _finished(manager: RunManager, row: Mapping[str, Any], origin: Origin) -> None:
    name, paths = row["name"], [artifact["path"] for artifact in row["artifacts"]]
    if row["status"] == "error":
        manager.component_failed(name, TrendFlowError(row["error_code"], row["error"]), paths)
    else:
        status: Literal["success", "empty"] = "success" if row["status"] == "ok" else "empty"
        known = manager.view.components[name]
        if origin == "resume" and known["status"] == status:
            manager.component_finished(name, status, paths, cache_hit=True)
        else:
            reported = known["status"] == status and known["attempt"] == manager.view.run["attempt"]
            if not reported and (known["status"] in DONE or not row["cache_hit"]):
                # It ended before: in a row that the journal missed, or with a result that is replaced by another one.
                manager.component_started(name)
            manager.component_finished(name, status, paths, cache_hit=row["cache_hit"])
        if name == SEGMENTER:
            manager.flag("frames_ready", by=SEGMENTER)
            manager.flag("audio_ready", by=SEGMENTER)
    for code in row["warnings"]:
        manager.component_warning(name, code)


def _end(manager: RunManager, error: TrendFlowError | None, computed: bool) -> None:
    if error is None:
        if run_outcome(manager.view.components.values()) != "success":
            error = TrendFlowError("cancelled", "Only a part of the run was asked for.")
        else:
            if not computed:
                manager.completed_from_cache()
            manager.succeed()
            return
    if error.error_code == "cancelled":
        manager.cancel()
    else:
        manager.fail(error)
