"""Bringing the Dagster runs of a video to an end, for its erasure."""

import logging
import time
from collections.abc import Callable, Collection

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus
from dagster._core.errors import DagsterError

from trendflow.orchestration.run_history import DagsterHistory

log = logging.getLogger(__name__)

_NOT_LAUNCHED = frozenset({DagsterRunStatus.NOT_STARTED, DagsterRunStatus.QUEUED})
_CANCEL_S = 180


class DagsterExecutions:
    """Runs of videos in a Dagster instance, for erasure (`trendflow.retention.traces.Executions`).

    `at_work` tells the ids of the Dagster runs that living workers have in their hands, whatever Dagster thinks of
    them. `now` is the time of this machine, in seconds since 1970.
    """

    def __init__(
        self,
        instance: DagsterInstance,
        at_work: Callable[[], Collection[str]] = tuple,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._instance, self._history = instance, DagsterHistory(instance)
        self._at_work, self._now = at_work, now

    def stop(self, platform_id: str, video_id: str) -> int:
        """Cancel the runs of the video: at once while they wait, else through whoever launched them.

        A run that was told to stop and is in nobody's hands ends like one that Dagster's own monitoring finds: when it
        has not ended for `run_monitoring.cancel_timeout_seconds`. Its process was killed, or stops at its next write.
        """
        runs = self._history.runs(video_id)
        for run in runs:
            self._cancel(run)
        at_work = set(self._at_work()) if runs else set()
        for run in self._history.runs(video_id):
            if run.status == DagsterRunStatus.CANCELING and run.run_id not in at_work and self._is_overdue(run):
                self._instance.report_run_canceled(run)
        left = self._history.runs(video_id)
        return sum(not run.is_finished or run.run_id in at_work for run in left)

    def _cancel(self, run: DagsterRun) -> None:
        if run.is_finished or run.status == DagsterRunStatus.CANCELING:
            return
        if run.status in _NOT_LAUNCHED:
            self._instance.report_run_canceling(run)
            self._instance.report_run_canceled(run)
            return
        try:
            self._instance.run_coordinator.cancel_run(run.run_id)
        except DagsterError as exc:  # its process cannot be reached; the state of the run tells it to stop
            log.warning("the run %s cannot be told to stop: %s", run.run_id, type(exc).__name__)

    def _is_overdue(self, run: DagsterRun) -> bool:
        told = self._instance.get_records_for_run(
            run.run_id, of_type=DagsterEventType.RUN_CANCELING, limit=1, ascending=False
        ).records
        limit_s = self._instance.run_monitoring_cancel_timeout_seconds or _CANCEL_S
        return bool(told) and self._now() - told[0].timestamp >= limit_s
