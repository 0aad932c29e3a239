"""The Prometheus metrics of a deployment. Labels come from closed sets: never ids of videos, runs or users."""

from __future__ import annotations

from trendflow.contracts.errors import ERROR_RULES
from trendflow.metrics.process import ProcessMetrics
from trendflow.state.transitions import RUN_END
from trendflow.submission.message import PRIORITIES

_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 7200)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics(ProcessMetrics):
    """What all runs of the deployment do, and what any process tells of itself."""

    def __init__(self) -> None:
        super().__init__()
        self.queue_length = self._gauge("queue_length", "Runs that wait.", "priority")
        self.queue_wait = self._histogram("queue_wait_seconds", "From acceptance to the start.", _SECONDS, "priority")
        self.processing = self._histogram(
            "processing_seconds", "Time of components that were computed.", _SECONDS, "processor", "component"
        )
        self.component_stage = self._histogram(
            "component_stage_seconds",
            "Time of components by how they ended and who computed them.",
            _SECONDS,
            "worker_id",
            "component",
            "component_kind",
            "status",
        )
        self.runs = self._counter("runs", "Runs that ended.", "status")
        self.success_rate = self._gauge("runs_success_rate", "Successful share of the runs of the last hour.")
        self.failures = self._counter("failures", "Components that failed.", "processor", "component", "error_type")
        self.empties = self._counter("empties", "Components without a result.", "component", "empty_reason")
        self.cache = self._counter("cache", "Reuse of results.", "component", "result")
        self.retries = self._counter("retries", "Retries of components.", "component", "error_type")
        self.oom_retries = self._counter("oom_retries", "Batches that had to shrink.", "component", "error_type")
        self.batch_size = self._histogram("effective_batch_size", "Units per batch.", _BATCHES, "component")
        self.alarms = self._gauge("alarms", "Alarms that stand; no series, no alarm.", "rule", "subject", "severity")
        self.health = self._gauge("health", "1 where a check of readiness found nothing, else 0.", "check")
        self.active_runs = self._gauge("active_runs", "Runs that are being executed.")
        self.crashed_runs = self._counter("crashed_runs", "Runs whose worker was lost.")
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Series of closed sets exist from the start: of one that begins with 1, `increase()` never sees the step.

        Those by component appear with the component: with every error code they would be thousands.
        """
        for status in RUN_END:
            self.runs.labels(status)
        for priority in PRIORITIES:
            self.queue_length.labels(priority)
            self.queue_wait.labels(priority)
        for code, rule in ERROR_RULES.items():
            if rule.error_class == "transient":  # only such runs are launched again
                self.retries.labels("run", code)
        self.cache.labels("run", "resume")
