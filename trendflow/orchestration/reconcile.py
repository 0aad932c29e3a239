"""Brings level 1, the state of runs and Dagster into agreement, whatever was lost between two of them.

A repair looks at what is there and does what is missing, so it may stop anywhere and be repeated. Facts are gathered
while others work; the logs refuse what has changed since, and the next look sees it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.launcher import ResumeRunContext, WorkerStatus
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES, RunRecord

from trendflow.contracts.errors import TrendFlowError, as_typed
from trendflow.orchestration.queue.names import WORKER_TAG
from trendflow.orchestration.run_state import conclude, device_of
from trendflow.orchestration.runs import run_path_of, view_run
from trendflow.orchestration.scheduler import Level1, Scheduler
from trendflow.orchestration.settling import settle
from trendflow.orchestration.successes import note_success
from trendflow.orchestration.video_runs import latest_records, video_key
from trendflow.state.errors import IllegalTransition
from trendflow.state.store import RunView
from trendflow.state.transitions import RUN_END
from trendflow.submission.desk import WAITING

log = logging.getLogger(__name__)

RECORDS = 1000
"""Dagster runs that one look takes in of those that live, and of those that ended: a backfill may have any number."""
IN_LINE = 200
"""Runs that wait for their turn and are looked at; the next look takes the next ones."""
_READERS = 8
_HISTORY = timedelta(hours=1)
"""Level 1 does not learn of a run that it never knew and that ended longer ago."""
_LAUNCHING = timedelta(minutes=3)
"""A launch takes less, also while it waits for the broker."""
_CANCELLED = TrendFlowError("cancelled", "The run was cancelled.")


@dataclass(frozen=True)
class _Facts:
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


def reconcile(scheduler: Scheduler, instance: DagsterInstance, since: datetime) -> Counter[str] | None:
    """One look at the runs that live and at those whose Dagster run ended after `since`; returns what was done.

    None when another thread had level 1 and the look has to be repeated. Raises `Fenced` when another process has
    taken level 1 over, and, once all others are repaired, what kept a run from being repaired for now.
    """
    done: Counter[str] = Counter()
    failed: list[Exception] = []
    with scheduler.turn() as level1:
        if level1 is None:
            return None
        rows = level1.manager.document["runs"]
        _look_at_line(scheduler, level1, instance, done)
    repaired: list[_Facts] = []
    for facts in _gather(scheduler, instance, rows, since):
        try:
            repaired.append(_repaired(scheduler, instance, facts, done))
        except Exception as exc:  # what is wrong with one run must not keep the others from being repaired
            error = as_typed(exc)
            log.error("the run %s cannot be repaired: %s", facts.run_path, error.error_code)
            if error.error_class == "transient" or error.error_code == "internal_error":
                failed.append(exc)
    with scheduler.turn() as level1:
        if level1 is None:
            return None
        for facts in repaired:
            _launch_again(scheduler, level1, facts, done)
            _tell(scheduler, level1, facts, done)
    if failed:
        raise failed[0]
    return done


def _gather(
    scheduler: Scheduler, instance: DagsterInstance, rows: Mapping[str, Any], since: datetime
) -> Iterator[_Facts]:
    graph = scheduler.deployment.graph
    living = RunsFilter(statuses=NOT_FINISHED_STATUSES)
    ended = RunsFilter(statuses=FINISHED_STATUSES, updated_after=since)
    found = [*instance.get_run_records(living, limit=RECORDS), *instance.get_run_records(ended, limit=RECORDS)]
    records: dict[str, RunRecord] = {}
    for record in sorted(found, key=lambda record: record.storage_id):
        key = video_key(graph, record.dagster_run)
        if key is not None:
            records[key] = record
    handed = {_partition_key(path) for path, row in rows.items() if row["status"] not in ("pending", *RUN_END)}
    records |= latest_records(instance, graph, sorted(handed - records.keys()))
    paths = [run_path_of(key) for key in sorted(handed | records.keys())]
    # The state is read after Dagster: a run that Dagster saw end has recorded its end before.
    for path, view in zip(paths, _views(scheduler, paths), strict=True):
        if not isinstance(view, TrendFlowError):
            yield _Facts(path, rows.get(path), view, records.get(_partition_key(path)))


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


def _look_at_line(scheduler: Scheduler, level1: Level1, instance: DagsterInstance, done: Counter[str]) -> None:
    """Runs that wait for their turn: who cancelled one need not wait for it, and no run waits for a lost message."""
    line = sorted(
        path
        for path, row in level1.manager.document["runs"].items()
        if row["status"] == "pending" and path not in scheduler.expected
    )
    paths = [path for path in line if path > scheduler.looked_at][:IN_LINE]
    scheduler.looked_at = paths[-1] if len(paths) == IN_LINE else ""
    launched = latest_records(instance, scheduler.deployment.graph, map(_partition_key, paths))
    for path, view in zip(paths, _views(scheduler, paths), strict=True):
        if _partition_key(path) in launched or isinstance(view, TrendFlowError):
            continue
        if view is not None and view.run["status"] in WAITING and view.run["cancel_requested_at"] is not None:
            conclude(scheduler.deployment, path, _CANCELLED)
            _note(level1, path, "cancelled", {})
            done["cancelled in line"] += 1
        elif view is not None and view.run["status"] in RUN_END:
            _note(level1, path, view.run["status"], {})
            done["told level 1"] += 1
        elif level1.queue.message(path) is None:
            lost = TrendFlowError("dependency_missing", "What was submitted cannot be read any more.", kind="message")
            conclude(scheduler.deployment, path, lost)
            _note(level1, path, "error", {"error": lost.message, "error_code": lost.error_code})
            done["message lost"] += 1


def _repaired(scheduler: Scheduler, instance: DagsterInstance, facts: _Facts, done: Counter[str]) -> _Facts:
    """The facts after Dagster and the state of the run agree."""
    deployment, view, record = scheduler.deployment, facts.view, facts.record
    if view is None or record is None:
        return facts
    status, run = view.run["status"], record.dagster_run
    if status in RUN_END:
        if status == "success" and (facts.row is None or facts.row["status"] != "success"):
            _note_success(scheduler, facts, done)
        # A Dagster run that is younger than the end is another attempt.
        before = record.create_timestamp < datetime.fromisoformat(view.run["finished_at"])
        if status == "cancelled" and facts.is_launched and before:
            instance.run_coordinator.cancel_run(run.run_id)
            done["cancelled in Dagster"] += 1
        return facts
    if run.is_finished:
        if not settle(deployment, instance, run):
            return facts
        done["ended the state"] += 1
    elif view.run["cancel_requested_at"] is not None and status in WAITING:
        instance.run_coordinator.cancel_run(run.run_id)
        conclude(deployment, facts.run_path, _CANCELLED)
        done["cancelled in Dagster"] += 1
    elif _is_lost(instance, record):
        instance.run_launcher.resume_run(ResumeRunContext(run, workspace=None, resume_attempt_number=None))
        done["put into the queue again"] += 1
        return facts
    else:
        return facts
    return replace(facts, view=deployment.states.read_run(facts.run_path))


def _is_lost(instance: DagsterInstance, record: RunRecord) -> bool:
    """Whether no worker will ever get the run: its launch came to its end, and the queue does not know it any more.

    Dagster itself looks after runs that have begun.
    """
    launcher, run = instance.run_launcher, record.dagster_run
    if run.status != DagsterRunStatus.STARTING or datetime.now(UTC) - record.update_timestamp < _LAUNCHING:
        return False
    if not (launcher.supports_check_run_worker_health and launcher.supports_resume_run):
        return False
    return launcher.check_run_worker_health(run).status == WorkerStatus.NOT_FOUND


def _note_success(scheduler: Scheduler, facts: _Facts, done: Counter[str]) -> None:
    try:
        done["noted success"] += note_success(view_run(scheduler.deployment, _partition_key(facts.run_path)))
    except TrendFlowError as error:
        if error.error_class == "transient":
            raise
        log.warning("the success of %s cannot be noted: %s", facts.run_path, error.error_code)  # its profile is gone


def _launch_again(scheduler: Scheduler, level1: Level1, facts: _Facts, done: Counter[str]) -> None:
    """A run that was handed over, lives and that Dagster does not know: somebody removed it there."""
    if facts.record is not None or facts.view is None or facts.view.run["status"] in RUN_END:
        return
    message = level1.queue.message(facts.run_path)
    if message is not None:
        scheduler.expected[facts.run_path] = message
        done["launched again"] += 1
    else:
        gone = TrendFlowError("dependency_missing", "Dagster does not know the run any more.", kind="run")
        conclude(scheduler.deployment, facts.run_path, gone)
        done["ended the state"] += 1


def _tell(scheduler: Scheduler, level1: Level1, facts: _Facts, done: Counter[str]) -> None:
    """Let level 1 know how a run is."""
    view = facts.view
    if view is None:
        if facts.is_handed_over and not facts.is_launched:
            lost = {"error": "The run has no state any more.", "error_code": "dependency_missing"}
            done["told level 1"] += _note(level1, facts.run_path, "error", lost)
        return
    row = level1.manager.document["runs"].get(facts.run_path)
    status = view.run["status"]
    if status in WAITING:
        if not facts.is_launched or (row is not None and row["status"] == "pending"):
            return  # whoever hands over notes it when it has its turn
        status = "queued"
    data: dict[str, Any] = {"stage": view.run["stage"]}
    if row is None:
        if status in RUN_END and _age(scheduler, view.run["finished_at"]) > _HISTORY:
            return
        data["submitted_at"] = view.run["submitted_at"]
    if view.run["error_code"] is not None:
        data |= {"error": view.run["error"], "error_code": view.run["error_code"]}
    if status in ("running", "recovering"):
        worker = _worker_of(facts)
        data |= {} if worker is None else {"worker": worker}
        if worker is not None and status == "running" and _is_elsewhere(level1, facts.run_path, worker["id"]):
            _note(level1, facts.run_path, "recovering", {})
    done["told level 1"] += _note(level1, facts.run_path, status, data)


def _age(scheduler: Scheduler, moment: str) -> timedelta:
    return datetime.fromisoformat(scheduler.desk.states.clock.utc()) - datetime.fromisoformat(moment)


def _worker_of(facts: _Facts) -> dict[str, Any] | None:
    assert facts.view is not None
    named = None if facts.record is None else facts.record.dagster_run.tags.get(WORKER_TAG)
    owners = (row["owner"] for row in facts.view.components.values() if row["status"] == "running")
    worker = named or next(owners, None)
    return None if worker is None else {"id": worker, "device": device_of(facts.view.run["resolved_models"])}


def _is_elsewhere(level1: Level1, run_path: str, worker: str) -> bool:
    """Whether level 1 has the run on another worker: it was lost, and the run taken over, since the last look."""
    workers = level1.manager.document["workers"]
    return any(run_path in row["running"] for name, row in workers.items() if name != worker)


def _note(level1: Level1, run_path: str, status: Any, data: Mapping[str, Any]) -> bool:
    """True when level 1 did not know it."""
    row = level1.manager.document["runs"].get(run_path)
    try:
        level1.manager.run_status(run_path, status, **data)
    except IllegalTransition as changed:  # what was gathered is out of date
        log.info("%s", changed)
        return False
    return row is None or row["status"] != status


def _partition_key(run_path: str) -> str:
    return run_path.partition("/")[2]
