"""The state of runs as their submission, their execution and those who find them dead record it."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from trendflow.contracts.errors import TrendFlowError, as_typed
from trendflow.contracts.identity import partition_key_of
from trendflow.contracts.manifest import CANCELLED
from trendflow.logs import log_context
from trendflow.orchestration.acceptance import accept
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.knobs import knobs_of
from trendflow.orchestration.processes import as_label, this_process
from trendflow.orchestration.recorder import Halted, Writer
from trendflow.orchestration.runs import RunContext, view_run
from trendflow.orchestration.successes import note_success_if_possible
from trendflow.orchestration.waiting_text import discard_text
from trendflow.orchestration.wrapper import finalise, run_error, run_status
from trendflow.state.errors import Fenced
from trendflow.state.run_manager import RunManager

log = logging.getLogger(__name__)

_LIVE = frozenset({"pending", "queued", "running", "recovering"})


class RunFailed(Exception):
    """The run has ended in an error: `component` could not be computed, or not used.

    `retries`: how often it was repeated, None where it was not executed.
    """

    def __init__(self, error: TrendFlowError, component: str, retries: int | None = None) -> None:
        self.error, self.component, self.retries = error, component, retries
        super().__init__(str(error))


@contextmanager
def executing(run: RunContext, worker: str | None = None) -> Iterator[None]:
    """Record the execution of a run in this process; `worker` names it where it is one of the queue.

    Everything that is logged inside says which run it is about. What leaves the block decides how the run ended:
    nothing or an error of what comes after the components, these alone; `RunFailed`, its error; an interrupt, a
    cancellation. Raises `Halted` when the run had to stop, and what opening the state raises.
    """
    owner = this_process() if worker is None else as_label(worker)
    identity = run.identity
    names = {"platform_id": identity.platform_id, "video_id": identity.video_id, "run_id": identity.run_id}
    with log_context(**names, worker=owner), _timed(), _recorded(run, owner):
        yield


@contextmanager
def _timed() -> Iterator[None]:
    """Log how long the execution took and what ended it early."""
    log.info("the run begins")
    begun = time.monotonic()

    def took(**found: str) -> dict[str, object]:
        return {**found, "duration_ms": round((time.monotonic() - begun) * 1000)}

    try:
        yield
    except (RunFailed, Halted) as ended:
        log.warning("the run ended: %s", ended.error, extra=took(error_code=ended.error.error_code))
        raise
    except BaseException as exc:
        log.warning("the run was left", exc_info=exc, extra=took())
        raise
    log.info("the run ended", extra=took())


@contextmanager
def _recorded(run: RunContext, owner: str) -> Iterator[None]:
    """Begin the recording of the run, and end it with what leaves the block."""
    partly_done = bool(run.manifest()["components"])
    manager = _taken_over(run, owner)
    models = _models_of(run)
    knobs = knobs_of(run.deployment.settings)
    manager.begin(worker=owner, device=device_of(models), resolved_models=models, knobs=knobs)
    if partly_done:
        manager.resumed()
    writer = run.recorder.begin(manager, owner)
    try:
        yield
        run.recorder.end(writer, _error_by_manifest(run, None))
        note_success_if_possible(run)
    except BaseException as cause:
        if isinstance(cause, Halted) and isinstance(cause.error, Fenced):
            log.error("another process has the run; this one stops")
            run.recorder.abandon(writer)
        else:
            _end_after(run, writer, cause)
        raise


def queued(deployment: Deployment, run_path: str) -> None:
    """The message of a run is about to be published. Whoever has the run by now keeps it."""
    manager = _opened(deployment, run_path, frozenset({"pending"}))
    if manager is not None:
        manager.queued()


def conclude(deployment: Deployment, run_path: str, error: TrendFlowError) -> bool:
    """End the state of a run whose execution is over and did not say so; True when it had to be done.

    `cancelled` cancels it, any other code fails it; its manifest is closed. The caller knows that no process executes
    the run any more: one that does is fenced off.
    """
    manager = _opened(deployment, run_path, _LIVE)
    if manager is None:
        return False
    _close(deployment, run_path, error)  # before its state ends, or nobody would come back to it
    if error.error_code == "cancelled":
        manager.cancel()
    else:
        manager.fail(error)
    discard_text(deployment, run_path, error)
    return True


def _close(deployment: Deployment, run_path: str, error: TrendFlowError) -> None:
    """Close the manifest of a run that ended of `error`, unless it is gone."""
    try:
        _close_manifest(view_run(deployment, partition_key_of(run_path)), error)
    except TrendFlowError as failed:
        if failed.error_class == "transient":
            raise
        log.warning("the manifest of the run is not closed: %s", failed)


def _close_manifest(run: RunContext, error: TrendFlowError) -> None:
    """Also where an earlier attempt closed it: what has not run by now has not for another reason."""
    finalise(run, CANCELLED if error.error_code == "cancelled" else f"the run ended with {error.error_code}")


def _opened(deployment: Deployment, run_path: str, only_if: Collection[str]) -> RunManager | None:
    """The manager of a run that is in one of these states; None for another one and for a run without a state."""
    try:
        return RunManager.open(deployment.states, run_path, holder=this_process(), only_if=only_if)
    except TrendFlowError as missing:
        if missing.error_code != "dependency_missing":
            raise
        return None  # nobody recorded a state, so none is wrong


def _taken_over(run: RunContext, owner: str) -> RunManager:
    """The manager of the run, which from now on belongs to this process."""
    states = run.deployment.states
    if states.read_run(run.run_path) is None:  # submitted by a version without states, or kept longer than its state
        accept(run.deployment, run.identity, run.profile_name, holder=owner)
    manager = RunManager.open(states, run.run_path, holder=owner)
    assert manager is not None  # None answers `only_if` alone
    return manager


def _end_after(run: RunContext, writer: Writer, cause: BaseException) -> None:
    """End the recording of a run that `cause` has stopped, which must not be hidden by what fails here."""
    if isinstance(cause, GeneratorExit) and run.recorder.unstored_error is None:
        # Dagster let go of the run: its database failed, for example. Whoever finds its run later goes on or ends it.
        log.warning("the run was let go of")
        run.recorder.abandon(writer)
        return
    try:
        if isinstance(cause, RunFailed | Halted):
            error: TrendFlowError | None = cause.error
        elif isinstance(cause, Exception):
            error = _error_by_manifest(run, cause)
        else:
            error = TrendFlowError("cancelled", "The run was interrupted.")
        ended_of = run.recorder.unstored_error or error
        # A run that failed has a closed manifest; one whose journal takes nothing any more has not ended.
        is_open = not isinstance(cause, RunFailed | Halted) or cause.error.error_code == "cancelled"
        if ended_of is not None and is_open:
            _close_manifest(run, ended_of)  # before its state ends, or nobody would come back to it
        run.recorder.end(writer, error)
    except Halted as halted:
        log.error("the end of the run could not be recorded: %s", halted.error)
    except TrendFlowError as failed:
        log.error("the end of the run could not be stored: %s", failed)
        run.recorder.abandon(writer)


def _error_by_manifest(run: RunContext, exc: Exception | None) -> TrendFlowError | None:
    """What the run failed of as its manifest has it; None when it succeeded, whatever came after its components."""
    manifest = run.manifest()
    status = run_status(run, manifest)
    if status == "error":
        return run_error(run, manifest)
    return None if status == "success" or exc is None else as_typed(exc)


def _models_of(run: RunContext) -> dict[str, dict[str, str]]:
    try:
        return {role: model.as_row() for role, model in run.resolved.items()}
    except TrendFlowError:  # the first component fails of the same, and that is stored
        return {}


def device_of(models: Mapping[str, Mapping[str, str]]) -> str | None:
    """The device of a run by its models, by role as the state has them; None without models."""
    devices = {model["device"] for model in models.values()}
    return max(devices, key=lambda device: (device != "cpu", device), default=None)
