"""What level 1, the state of a run and Dagster say about runs, gathered for whoever compares them.

What lives is looked at each time; of what only waits, and there may be any number of it, a look takes a part, and the
next look the next one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES, RunRecord

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import partition_key_of
from trendflow.orchestration.runs import run_path_of
from trendflow.orchestration.scheduler import Scheduler
from trendflow.orchestration.video_runs import latest_records, video_key
from trendflow.state.store import RunView
from trendflow.state.transitions import RUN_END

log = logging.getLogger(__name__)

ENDED = 1000
"""Dagster runs that one look takes in of those that ended."""
WAITING = 200
"""Runs that one look takes in of those that wait: in level 1's line, handed over, and in Dagster's queue."""
_READERS = 8
_BEGUN = [status for status in NOT_FINISHED_STATUSES if status != DagsterRunStatus.QUEUED]


@dataclass(frozen=True)
class Facts:
    """What the three say about one run. `row`: level 1; `view`: its state; `record`: its latest Dagster run."""

    run_path: str
    row: Mapping[str, Any] | None
    view: RunView | None
    record: RunRecord | None

    @property
    def is_launched(self) -> bool:
        return self.record is not None and not self.record.dagster_run.is_finished

    @property
    def is_handed_over(self) -> bool:
        """Whether level 1 says that Dagster has the run."""
        return self.row is not None and self.row["status"] != "pending" and self.row["status"] not in RUN_END


def facts_of_runs(
    scheduler: Scheduler, instance: DagsterInstance, rows: Mapping[str, Any], since: datetime
) -> Iterator[Facts]:
    """Runs that Dagster or `rows`, those of level 1, say live, and those whose Dagster run ended after `since`.

    A run whose state is damaged is left out and logged.
    """
    graph = scheduler.deployment.graph
    ended = RunsFilter(statuses=FINISHED_STATUSES, updated_after=since)
    # In the order of a run's life: one that goes on meanwhile is found twice, and not missed.
    found = [
        *_part_of_dagsters_queue(scheduler, instance),
        *instance.get_run_records(RunsFilter(statuses=_BEGUN)),  # as many as Dagster's queue lets through
        *instance.get_run_records(ended, limit=ENDED),
    ]
    records: dict[str, RunRecord] = {}
    for record in sorted(found, key=lambda record: record.storage_id):
        key = video_key(graph, record.dagster_run)
        if key is not None:
            records[key] = record
    queued = [path for path, row in rows.items() if row["status"] == "queued"]
    part, scheduler.looked_at.handed = _part(queued, scheduler.looked_at.handed)
    handed = [*part, *(path for path, row in rows.items() if row["status"] in ("running", "recovering"))]
    keys = {partition_key_of(path) for path in handed}
    records |= latest_records(instance, graph, sorted(keys - records.keys()))
    paths = [run_path_of(key) for key in sorted(keys | records.keys())]
    wrong = [path for path in paths if not _agree(rows.get(path), records.get(partition_key_of(path)))]
    # The state is read after Dagster: a run that Dagster saw end has recorded its end before.
    for path, view in zip(wrong, _views(scheduler, wrong), strict=True):
        if not isinstance(view, TrendFlowError):
            yield Facts(path, rows.get(path), view, records.get(partition_key_of(path)))


def facts_of_line(scheduler: Scheduler, instance: DagsterInstance, rows: Mapping[str, Any]) -> Iterator[Facts]:
    """Runs that wait for their turn and that Dagster does not know; damaged ones as in `facts_of_runs`."""
    line = [path for path, row in rows.items() if row["status"] == "pending" and path not in scheduler.expected]
    paths, scheduler.looked_at.line = _part(line, scheduler.looked_at.line)
    launched = latest_records(instance, scheduler.deployment.graph, map(partition_key_of, paths))
    for path, view in zip(paths, _views(scheduler, paths), strict=True):
        if partition_key_of(path) not in launched and not isinstance(view, TrendFlowError):
            yield Facts(path, rows[path], view, None)


def _part_of_dagsters_queue(scheduler: Scheduler, instance: DagsterInstance) -> Sequence[RunRecord]:
    """Those that have waited longest first. A run that has left Dagster since is no place to go on from: then none."""
    queued = RunsFilter(statuses=[DagsterRunStatus.QUEUED])
    after = scheduler.looked_at.dagster_run
    found = instance.get_run_records(queued, limit=WAITING, ascending=True, cursor=after)
    scheduler.looked_at.dagster_run = found[-1].dagster_run.run_id if len(found) == WAITING else None
    return found


def _part(paths: Iterable[str], after: str) -> tuple[list[str], str]:
    """The next runs by name, and after which one the next look goes on; "" from the beginning."""
    part = sorted(path for path in paths if path > after)[:WAITING]
    return part, part[-1] if len(part) == WAITING else ""


def _agree(row: Mapping[str, Any] | None, record: RunRecord | None) -> bool:
    """Whether level 1 and Dagster both saw the run end well, so that nothing can be missing."""
    succeeded = record is not None and record.dagster_run.status == DagsterRunStatus.SUCCESS
    return succeeded and row is not None and row["status"] == "success"


def _views(scheduler: Scheduler, run_paths: Iterable[str]) -> list[RunView | TrendFlowError | None]:
    """The states of runs; for a damaged one its error, which must not keep the others from being repaired."""

    def read(run_path: str) -> RunView | TrendFlowError | None:
        try:
            return scheduler.deployment.states.read_run(run_path)
        except TrendFlowError as error:
            if error.error_class == "transient":
                raise
            log.error("the state of the run %s cannot be read: %s", run_path, error.error_code)
            return error

    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(read, run_paths))
