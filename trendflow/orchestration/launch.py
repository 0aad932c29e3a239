"""Launches runs from outside Dagster's own processes: the command line, scripts and benchmarks."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from dagster import DagsterEvent, DagsterInstance, JobDefinition

from trendflow.contracts.errors import ERROR_RULES, TrendFlowError
from trendflow.orchestration.database_errors import database_error
from trendflow.orchestration.history import open_instance
from trendflow.orchestration.partitions import add_partitions
from trendflow.orchestration.resources import TrendFlowResource
from trendflow.orchestration.run_state import conclude
from trendflow.orchestration.runs import run_path_of
from trendflow.state.errors import Fenced
from trendflow.storage.object_store import ObjectNotFound

log = logging.getLogger(__name__)

Outcome = Literal["success", "error", "cancelled"]
_TYPED = (TrendFlowError.__name__, ObjectNotFound.__name__, Fenced.__name__)


@contextmanager
def typed_database() -> Iterator[None]:
    """Dagster's database may be full, locked or read-only: `storage_unavailable` or `config_invalid`."""
    try:
        yield
    except Exception as exc:  # the database is told from everything else, which goes on unchanged
        failed = None if isinstance(exc, TrendFlowError) else database_error(exc)
        if failed is None:
            raise
        # SQLite speaks in fixed phrases; other databases may quote their address.
        reason = f": {failed.orig}" if isinstance(failed.orig, sqlite3.Error) else ""
        wrong = any(phrase in reason for phrase in ("readonly", "unable to open"))
        code = "config_invalid" if wrong else "storage_unavailable"
        raise TrendFlowError(code, f"The database in DAGSTER_HOME does not work{reason}.") from exc


def register(keys: Iterable[str]) -> None:
    """Make runs known to Dagster as partitions, without starting them."""
    with typed_database(), DagsterInstance.get() as instance:
        add_partitions(instance, keys)


def process_here(job: JobDefinition, partition_key: str) -> Outcome:
    """Run the job for one partition inside this process, recorded in the Dagster instance.

    A component that fails is explained by the manifest. Raises the typed error of a run that failed outside its
    components, for example because the store or Dagster's database cannot be written, and `cancelled` when another
    process has taken the run over.
    """
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    try:
        with typed_database(), open_instance() as instance:
            add_partitions(instance, [partition_key])
            result = job.execute_in_process(
                partition_key=partition_key, instance=instance, raise_on_error=False, run_config=quiet
            )
    except TrendFlowError as failed:
        _conclude(partition_key, failed)
        raise
    if result.success:
        return "success"
    error = next((cause for cause in map(_typed_cause, result.all_events) if cause is not None), None)
    if isinstance(error, Fenced):
        raise error
    stopped = error is not None and error.error_code == "cancelled"
    if stopped or any(_is_interrupt(found) for found in result.all_events):
        error = TrendFlowError("cancelled", "The run was interrupted.")
    # The step records the end of its run, unless it never came to begin or Dagster let go of it in the middle.
    ended = error or TrendFlowError("internal_error", "The run failed outside its components.")
    _conclude(partition_key, ended)
    if ended.error_code == "cancelled":
        return "cancelled"
    if error is not None:
        raise error
    return "error"


def _conclude(partition_key: str, error: TrendFlowError) -> None:
    try:
        conclude(TrendFlowResource().deployment, run_path_of(partition_key), error)
    except TrendFlowError as failed:  # a store that takes nothing; why the run ended is what matters here
        log.warning("the end of the run could not be recorded: %s", failed)


def _typed_cause(found: DagsterEvent) -> TrendFlowError | None:
    """The typed error behind a failed step. Dagster keeps exceptions as text."""
    error = found.step_failure_data.error if found.is_step_failure else None
    while error is not None:
        if error.cls_name in _TYPED:
            code, _, sentence = error.message.strip().partition(": ")[2].partition(": ")
            if code in ERROR_RULES:
                return (Fenced if error.cls_name == Fenced.__name__ else TrendFlowError)(code, sentence)
        error = error.cause
    return None


def _is_interrupt(found: DagsterEvent) -> bool:
    """Dagster takes the interrupt of Ctrl-C, ends the run in its own order and reports it as a failure."""
    if not found.is_job_failure or found.job_failure_data.error is None:
        return False
    return found.job_failure_data.error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
