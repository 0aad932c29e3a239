"""Launches runs from outside Dagster's own processes: the command line, scripts and benchmarks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from functools import cache
from typing import Any, Literal

from dagster import DagsterEvent, DagsterInstance, JobDefinition
from sqlalchemy import event
from sqlalchemy.engine import Engine

from trendflow.orchestration.partitions import add_partitions

Outcome = Literal["success", "error", "cancelled"]


def register(keys: Iterable[str]) -> None:
    """Make runs known to Dagster as partitions, without starting them."""
    with DagsterInstance.get() as instance:
        add_partitions(instance, keys)


@cache
def _relax_sqlite() -> None:
    """Let SQLite write its log without waiting for the disk at every event.

    Dagster commits each of the 100 events of a run on its own. In WAL mode `synchronous=NORMAL` keeps the database
    consistent through a crash of the process; what a power cut may lose is history, and history is not the truth.
    """

    @event.listens_for(Engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=NORMAL")


def process_here(job: JobDefinition, partition_key: str) -> Outcome:
    """Run the job for one partition inside this process, recorded in the Dagster instance."""
    _relax_sqlite()
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with DagsterInstance.get() as instance:
        add_partitions(instance, [partition_key])
        result = job.execute_in_process(
            partition_key=partition_key, instance=instance, raise_on_error=False, run_config=quiet
        )
    if result.success:
        return "success"
    return "cancelled" if any(_is_interrupt(found) for found in result.all_events) else "error"


def _is_interrupt(found: DagsterEvent) -> bool:
    """Dagster takes the interrupt of Ctrl-C, ends the run in its own order and reports it as a failure."""
    if not found.is_job_failure or found.job_failure_data.error is None:
        return False
    return found.job_failure_data.error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
