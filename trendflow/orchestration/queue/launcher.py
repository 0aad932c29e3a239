"""Dagster's run launcher: a run becomes a message, a worker executes it.

Not `dagster_celery.CeleryRunLauncher`: it puts the instance with its passwords into the message, its task does nothing
with a redelivered run that was begun, and its health check asks for task results that a killed worker leaves at STARTED
for ever. What is left of it after that is less than what is here.
"""

import logging
from collections.abc import Mapping
from functools import cached_property
from time import monotonic, sleep
from typing import Any, Self

from celery import Celery
from dagster import DagsterRun, DagsterRunStatus, Field, Noneable, StringSource
from dagster._config import UserConfigSchema
from dagster._core.launcher import (
    CheckRunHealthResult,
    LaunchRunContext,
    ResumeRunContext,
    RunLauncher,
    WorkerStatus,
)
from dagster._serdes import ConfigurableClass, ConfigurableClassData
from kombu.exceptions import OperationalError

from trendflow.config import load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.deployment import open_deployment
from trendflow.orchestration.queue.board import Board
from trendflow.orchestration.queue.celery_app import RUN_TASK, broker_url, make_app
from trendflow.orchestration.queue.names import WORKER_TAG, Rhythm, queue_name
from trendflow.orchestration.queue.routing import Router, priority_of_run
from trendflow.orchestration.retries import failure_tags
from trendflow.orchestration.run_state import queued
from trendflow.orchestration.runs import run_path_of
from trendflow.orchestration.video_runs import video_key

log = logging.getLogger(__name__)

PATIENCE_S = 120.0
"""How long launches wait for a broker that went away: all together, not each of them anew."""
_PAUSE_S = 1.0


class _BrokerAway(TrendFlowError):
    """`storage_unavailable`: the broker did not take a message within the patience of the launch."""


class QueueRunLauncher(RunLauncher[Any], ConfigurableClass):
    """Launches runs through the queue. `broker_url` defaults to the setting of the same name.

    A run that waits in the queue is STARTING for Dagster: set `run_monitoring.start_timeout_seconds` to years, else
    Dagster fails what waits longer than that. 0 does not switch the limit off.
    """

    def __init__(self, broker_url: str | None = None, inst_data: ConfigurableClassData | None = None) -> None:
        self._given_url, self._inst_data = broker_url, inst_data
        self._silent: tuple[float, float] | None = None
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        return {"broker_url": Field(Noneable(StringSource), is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data=inst_data, **config_value)

    @cached_property
    def _url(self) -> str:
        return self._given_url or broker_url(load_settings())

    @cached_property
    def _app(self) -> Celery:
        return make_app(self._url, load_settings().max_duration_sec)

    @cached_property
    def _board(self) -> Board:
        return Board(self._url)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Publish the run. Raises `config_invalid` for tags or profiles, `storage_unavailable` without a store.

        Dagster fails a run that cannot be launched, and whoever launches it again has to know of what. A broker that is
        away is no reason: an outage would fail all runs that wait. They stay STARTING, and as runs that the queue does
        not know they are put into it when it is back (`reconcile_runs`).
        """
        run = context.dagster_run
        try:
            self._publish(run, PATIENCE_S)
        except _BrokerAway as away:
            self._instance.report_engine_event(f"{away.message} The run waits for it.", run, cls=type(self))
        except TrendFlowError as error:
            self._instance.add_run_tags(run.run_id, failure_tags(run.tags, error.error_code))
            raise

    @property
    def supports_resume_run(self) -> bool:
        return True

    def resume_run(self, context: ResumeRunContext) -> None:
        """Publish a run again that is known to have no message any more. The worker sees that it was begun.

        Raises `storage_unavailable` at once when the broker is away: whoever found the run finds it again.
        """
        self._publish(context.dagster_run, 0.0)

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """RUNNING while the queue has the run. Workers that die are the workers' own affair (`run_health`).

        Of a broker that has just started nobody can tell: what it lost, living workers tell it again.

        A run without the origin of its code is executed by a process that did not need to be told: no worker has it.
        """
        board = self._board
        if run.job_code_origin is None or board.uptime_s() < Rhythm().silent_s or board.has(run.run_id):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "The queue does not know the run.")

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:
        return f"worker {run.tags[WORKER_TAG]}" if WORKER_TAG in run.tags else None

    def terminate(self, run_id: str) -> bool:
        """Cancel a run: at once while it waits, else when its worker notices. False when it has ended."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        if run.status != DagsterRunStatus.STARTED:
            self._instance.report_run_canceled(run)  # whoever is given its message then has nothing to do
        return True

    def _publish(self, run: DagsterRun, patience_s: float) -> None:
        deployment = open_deployment(load_settings())
        queue = queue_name(Router(deployment).device_queue_of(run), priority_of_run(run))
        key = video_key(deployment.graph, run)
        if key is not None:
            queued(deployment, run_path_of(key))
        self._send(run.run_id, queue, patience_s)
        self._instance.report_engine_event(f"The run waits in the queue {queue}.", run, cls=type(self))

    def _send(self, run_id: str, queue: str, patience_s: float) -> None:
        """A message that was sent twice does no harm: only one worker at a time has the run."""
        while True:
            try:
                self._board.expect(run_id)
                self._app.send_task(RUN_TASK, args=[run_id], queue=queue)
                self._silent = None
                return
            except (OperationalError, TrendFlowError) as exc:
                if isinstance(exc, TrendFlowError) and exc.error_code != "storage_unavailable":
                    raise
                log.warning("the broker of the queue does not take run %s (%s)", run_id, type(exc).__name__)
                if self._away_for() >= patience_s:
                    self._withdraw(run_id)
                    message = "The broker of the queue does not take messages."
                    raise _BrokerAway("storage_unavailable", message) from exc
            sleep(_PAUSE_S)

    def _away_for(self) -> float:
        """Seconds since the broker did not answer for the first time, as it does not now."""
        now = monotonic()
        first, last = self._silent or (now, now)
        self._silent = (first if now - last < PATIENCE_S else now), now  # else that was another time
        return now - self._silent[0]

    def _withdraw(self, run_id: str) -> None:
        try:
            self._board.withdraw(run_id)
        except TrendFlowError:
            log.warning("run %s stays announced to a broker that does not answer", run_id)
