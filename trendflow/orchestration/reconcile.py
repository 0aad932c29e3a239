"""Brings level 1, the state of runs and Dagster into agreement, whatever was lost between two of them.

A repair looks at what is there and does what is missing, so it may stop anywhere and be repeated. Facts are gathered
while others work; the logs refuse what has changed since, and the next look sees it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.launcher import ResumeRunContext, WorkerStatus
from dagster._core.storage.dagster_run import RunRecord

from trendflow.contracts.errors import TrendFlowError, as_typed
from trendflow.contracts.identity import partition_key_of
from trendflow.logs import places
from trendflow.orchestration.deleted import tombstones
from trendflow.orchestration.queue.names import WORKER_TAG
from trendflow.orchestration.run_facts import Facts, facts_of_line, facts_of_runs
from trendflow.orchestration.run_state import conclude, device_of
from trendflow.orchestration.runs import view_run
from trendflow.orchestration.scheduler import Level1, Scheduler
from trendflow.orchestration.settling import end_abandoned, is_abandoned, settle
from trendflow.orchestration.successes import note_success
from trendflow.state.errors import IllegalTransition
from trendflow.state.transitions import RUN_END
from trendflow.submission.desk import WAITING

log = logging.getLogger(__name__)

_HISTORY = timedelta(hours=1)
"""Level 1 does not learn of a run that it never knew and that ended longer ago."""
_LAUNCHING = timedelta(minutes=3)
"""A launch takes less, also while it waits for the broker."""
_CANCELLED = TrendFlowError("cancelled", "The run was cancelled.")


def reconcile(scheduler: Scheduler, instance: DagsterInstance, since: datetime) -> Counter[str] | None:
    """One look at the runs that live and at those whose Dagster run ended after `since`; returns what was done.

    None when another thread had level 1 and the look has to be repeated. Raises `Fenced` when another process has
    taken level 1 over, and, once all others are repaired, the transient error that kept a run from being repaired.
    """
    done: Counter[str] = Counter()
    failed: list[TrendFlowError] = []
    with scheduler.turn() as level1:
        if level1 is None:
            return None
        rows = level1.manager.document["runs"]
    line = list(facts_of_line(scheduler, instance, rows))
    repaired: list[Facts] = []
    launcher = _Launcher(instance)
    for facts in facts_of_runs(scheduler, instance, rows, since):
        try:
            repaired.append(_repaired(scheduler, instance, launcher, facts, done))
        except Exception as exc:  # what is wrong with one run must not keep the others from being repaired
            error = as_typed(exc)
            passed = {"places": places(exc)}
            log.error("the run %s cannot be repaired: %s", facts.run_path, error.error_code, extra=passed)
            if error.error_class == "transient":  # anything else would be the same the next time, and for ever
                failed.append(error)
    with scheduler.turn() as level1:
        if level1 is None:
            return None
        erased = _erased(scheduler, level1, [*line, *repaired])
        for facts in line:
            if facts.run_path not in erased:
                _decide_in_line(scheduler, level1, facts, done)
        for facts in repaired:
            if facts.run_path not in erased:
                _launch_again(scheduler, level1, facts, done)
                _tell(scheduler, level1, facts, done)
    if failed:
        raise failed[0]
    return done


def _erased(scheduler: Scheduler, level1: Level1, gathered: Iterable[Facts]) -> set[str]:
    """Runs that left level 1 since they were looked at, and runs of deleted videos: neither may be put there again."""
    unknown = [facts for facts in gathered if facts.run_path not in level1.manager.document["runs"]]
    deleted = tombstones(scheduler.deployment) if unknown else ()
    return {
        facts.run_path for facts in unknown if facts.row is not None or tuple(facts.run_path.split("/")[:2]) in deleted
    }


def _decide_in_line(scheduler: Scheduler, level1: Level1, facts: Facts, done: Counter[str]) -> None:
    """A run that waits for its turn: who cancelled it need not wait for that, and no run waits for a lost message."""
    path, view = facts.run_path, facts.view
    if level1.manager.document["runs"][path]["status"] != "pending" or path in scheduler.expected:
        return  # its turn has come meanwhile
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


def _repaired(
    scheduler: Scheduler, instance: DagsterInstance, launcher: _Launcher, facts: Facts, done: Counter[str]
) -> Facts:
    """The facts after Dagster and the state of the run agree."""
    deployment, view, record = scheduler.deployment, facts.view, facts.record
    if view is None or record is None:
        return facts
    if is_abandoned(deployment, record, view, datetime.fromisoformat(scheduler.desk.states.clock.utc())):
        end_abandoned(instance, record.dagster_run, view)
        done["ended in Dagster"] += 1
        record = instance.get_run_record_by_id(record.dagster_run.run_id)
        facts = replace(facts, record=record)
        if record is None:
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
    elif launcher.puts_in_again(record):
        done["put into the queue again"] += 1
        return facts
    else:
        return facts
    return replace(facts, view=deployment.states.read_run(facts.run_path))


class _Launcher:
    """Puts lost runs into the queue again, for one look: when the queue does not answer, it is asked no more."""

    def __init__(self, instance: DagsterInstance) -> None:
        self._launcher = instance.run_launcher
        self._answers = self._launcher.supports_check_run_worker_health and self._launcher.supports_resume_run

    def puts_in_again(self, record: RunRecord) -> bool:
        """True when no worker would ever have got the run: its launch came to its end, and the queue does not know it.

        Dagster itself looks after runs that have begun.
        """
        run = record.dagster_run
        if run.status != DagsterRunStatus.STARTING or datetime.now(UTC) - record.update_timestamp < _LAUNCHING:
            return False
        if not self._answers:
            return False
        try:
            if self._launcher.check_run_worker_health(run).status != WorkerStatus.NOT_FOUND:
                return False
            self._launcher.resume_run(ResumeRunContext(run, workspace=None, resume_attempt_number=None))
        except TrendFlowError as error:
            self._answers = error.error_code != "storage_unavailable"
            raise
        return True


def _note_success(scheduler: Scheduler, facts: Facts, done: Counter[str]) -> None:
    try:
        done["noted success"] += note_success(view_run(scheduler.deployment, partition_key_of(facts.run_path)))
    except TrendFlowError as error:
        if error.error_class == "transient":
            raise
        log.warning("the success of %s cannot be noted: %s", facts.run_path, error.error_code)  # its profile is gone


def _launch_again(scheduler: Scheduler, level1: Level1, facts: Facts, done: Counter[str]) -> None:
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


def _tell(scheduler: Scheduler, level1: Level1, facts: Facts, done: Counter[str]) -> None:
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


def _worker_of(facts: Facts) -> dict[str, Any] | None:
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
