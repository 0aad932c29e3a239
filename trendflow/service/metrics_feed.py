"""Metrics from what the store says: level 1 at every look, the log of each run once, when it has ended."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from trendflow.alarms.book import AlarmBook
from trendflow.alarms.rules import success_rate
from trendflow.contracts.errors import TrendFlowError
from trendflow.service.metrics import Metrics
from trendflow.service.parts import ComponentPlace
from trendflow.state.events import Event
from trendflow.state.store import RunView, StateStore
from trendflow.state.transitions import COMPONENT_END, RUN_END
from trendflow.storage.result_store import ResultStore
from trendflow.submission.message import PRIORITIES

_WAITING = ("pending", "queued")
_ACTIVE = ("running", "recovering")
_RATE_WINDOW = timedelta(hours=1)


class MetricsFeed:
    """One per process. What ended before its first look is not counted: an earlier process did.

    A run may end several times, once for each attempt. Each end counts what the log says since the one before it.
    """

    def __init__(
        self,
        metrics: Metrics,
        states: StateStore,
        results: ResultStore,
        alarms: AlarmBook,
        components: Mapping[str, ComponentPlace],
    ) -> None:
        self._metrics, self._states, self._results, self._components = metrics, states, results, components
        self._alarms = alarms
        self._lock = threading.Lock()
        self._counted: set[tuple[str, str]] | None = None
        # The last event that was counted, by run; None for runs that an earlier process may have counted in part.
        self._last_seq: dict[str, int | None] = {}

    def refresh(self) -> None:
        """Bring the metrics up to date. Raises what reading the store raises."""
        with self._lock:
            runs = self._states.read_global()["runs"]
            self._levels(runs)
            ended = {(path, row["finished_at"]) for path, row in runs.items() if row["status"] in RUN_END}
            if self._counted is None:
                self._counted = ended
                self._last_seq = dict.fromkeys(runs)
            for path, finished_at in sorted(ended - self._counted, key=lambda run: run[1]):
                self._run_ended(path, runs[path])
                self._counted.add((path, finished_at))
            self._counted &= ended  # level 1 forgets old ones, and so may we
            self._last_seq = {path: seq for path, seq in self._last_seq.items() if path in runs}
            self._alarms_that_stand()

    def _levels(self, runs: Mapping[str, Any]) -> None:
        rows = runs.values()
        for priority in PRIORITIES:
            waiting = sum(row["status"] in _WAITING and row["priority"] == priority for row in rows)
            self._metrics.queue_length.labels(priority).set(waiting)
        self._metrics.active_runs.set(sum(row["status"] in _ACTIVE for row in rows))
        since = datetime.fromisoformat(self._states.clock.utc()) - _RATE_WINDOW
        recent = [
            row["status"]
            for row in rows
            if row["status"] in RUN_END and datetime.fromisoformat(row["finished_at"]) >= since
        ]
        self._metrics.success_rate.set(success_rate(recent))

    def _alarms_that_stand(self) -> None:
        standing = self._alarms.active()
        self._metrics.alarms.clear()
        for alarm in standing:
            self._metrics.alarms.labels(alarm["rule"], alarm["subject"], alarm["severity"]).set(1)

    def _run_ended(self, run_path: str, row: Mapping[str, Any]) -> None:
        self._metrics.runs.labels(row["status"]).inc()
        if row["started_at"] is not None:
            wait = _seconds(row["submitted_at"], row["started_at"])
            self._metrics.queue_wait.labels(row["priority"]).observe(max(0.0, wait))
        try:
            view = self._states.read_run(run_path)
            recorded = self._states.events(run_path)
        except TrendFlowError as error:
            if error.error_class == "transient":
                raise
            return  # a damaged log is reported where it is used; the other runs still count
        events = self._not_counted(run_path, recorded)
        ended = {event.subject for event in events if event.type == "component_status" and event.to in COMPONENT_END}
        if view is not None:
            rows = [found for found in self._rows(run_path) if found["name"] in ended]
            reasons = {found["name"]: found["empty_reason"] for found in rows if found["empty_reason"]}
            self._components_ended(view, ended, reasons)
            self._batches(rows)
        for event in events:
            self._event(event)

    def _not_counted(self, run_path: str, recorded: Sequence[Event]) -> list[Event]:
        """Events of the log that no earlier end of the run was counted with, and from now on none will be."""
        after = self._last_seq.get(run_path, 0)
        if after is None:
            ends = [event.seq for event in recorded if event.type == "run_status" and event.to in RUN_END]
            after = ends[-2] if len(ends) > 1 else 0
        self._last_seq[run_path] = recorded[-1].seq if recorded else after
        return [event for event in recorded if event.seq > after]

    def _components_ended(self, view: RunView, ended: Collection[str], reasons: Mapping[str, str]) -> None:
        """Count components of which the last attempt has an end of its own; the others were counted before."""
        metrics = self._metrics
        for processor, document in view.processors.items():
            for name, row in document["components"].items():
                if name not in ended or row["status"] not in COMPONENT_END:
                    continue
                if row["started_at"] is not None and row["finished_at"] is not None and not row["cache_hit"]:
                    seconds = max(0.0, _seconds(row["started_at"], row["finished_at"]))
                    kind = self._components[name].kind if name in self._components else "other"
                    metrics.processing.labels(processor, name).observe(seconds)
                    metrics.component_stage.labels(_worker(row["owner"]), name, kind, row["status"]).observe(seconds)
                if row["status"] == "error":
                    metrics.failures.labels(processor, name, row["error_code"]).inc()
                if name in reasons:
                    metrics.empties.labels(name, reasons[name]).inc()
                if row["status"] in ("success", "empty"):
                    metrics.cache.labels(name, "hit" if row["cache_hit"] else "miss").inc()

    def _event(self, event: Event) -> None:
        match event.type:
            case "retry_scheduled":
                # A whole run's is told by no component; its subject would name the run.
                component = event.subject if event.level == 3 else "run"
                self._metrics.retries.labels(component, event.data["error_code"]).inc()
            case "oom_reduced":
                self._metrics.oom_retries.labels(event.subject, "out_of_memory").inc()
            case "cache_check_failed":
                self._metrics.cache.labels(event.subject, "error").inc()
            case "resume_from_checkpoint":
                self._metrics.cache.labels("run", "resume").inc()
            case "run_status" if event.to == "recovering" and event.source in _ACTIVE:  # else it had ended: a retry
                self._metrics.crashed_runs.inc()

    def _batches(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            size = row["batching"]["effective_batch_size"]
            if size is not None and not row["cache_hit"]:
                self._metrics.batch_size.labels(row["name"]).observe(size)

    def _rows(self, run_path: str) -> Sequence[Mapping[str, Any]]:
        manifest = self._results.read_manifest(run_path)
        return [] if manifest is None else manifest["components"]


def _worker(owner: str | None) -> str:
    """Name and host of a worker; the rest of its id is new with every start, and labels must come to an end."""
    return (owner or "").partition(":")[0]


def _seconds(begin: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
