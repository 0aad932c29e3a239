"""`python -m trendflow.orchestration.queue.worker`: one warm worker."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Sequence
from functools import cache

from celery.signals import setup_logging, worker_process_init, worker_shutting_down
from dagster import DagsterRun

from trendflow.config import Settings, ensure_home, load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.logs import configure_logging
from trendflow.metrics.gpu import GpuMetrics
from trendflow.metrics.host import HostMetrics, this_process_and_its_parent
from trendflow.metrics.process import ProcessMetrics
from trendflow.metrics.server import serve
from trendflow.orchestration.deployment import open_deployment
from trendflow.orchestration.model_server import needs_model_server, require_model_server
from trendflow.orchestration.queue.board import Board, WorkerFacts
from trendflow.orchestration.queue.celery_app import RUN_TASK, broker_url, make_app
from trendflow.orchestration.queue.child import CurrentRun
from trendflow.orchestration.queue.farewell import Farewell
from trendflow.orchestration.queue.held import HeldRequest, held_tags
from trendflow.orchestration.queue.names import DEVICE_QUEUES, PRIORITIES, DeviceQueue, Rhythm, queue_name
from trendflow.orchestration.queue.pulse import Pulse
from trendflow.orchestration.queue.run_health import Restorer, RunHealth
from trendflow.orchestration.queue.run_task import RunTask
from trendflow.orchestration.run_log import take_over_console
from trendflow.orchestration.runs import view_run
from trendflow.orchestration.scratch import keep_scratch_swept
from trendflow.orchestration.video_runs import video_key

log = logging.getLogger(__name__)

CODE = ("trendflow.definitions",)
"""What the child imports before its first run."""
_NO_OBJECT = "ready"
"""A key that nobody writes: whether it is there costs the store least to say."""


def run_worker(
    name: str,
    devices: Sequence[DeviceQueue],
    rhythm: Rhythm | None = None,
    code: Sequence[str] = CODE,
    metrics_port: int | None = None,
) -> None:
    """Work until SIGTERM ends it, which lets the run end first. Killed, it is missed, and another takes up its run.

    A run that it has when SIGTERM comes and that does not end in time has not failed: that delivery does not count.

    The worker's id names this very process, for a worker that is started again is another one. Its metrics are told by
    the child, which is where runs are executed. Raises `config_invalid` without a broker, `storage_unavailable` when it
    does not answer.
    """
    settings, rhythm = load_settings(), rhythm or Rhythm()
    url = broker_url(settings)
    app = make_app(url, settings.max_duration_sec)
    queues = tuple(queue_name(device, priority) for device in devices for priority in PRIORITIES)
    worker = f"{name}@{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    def require_ready(run: DagsterRun) -> None:
        deployment = open_deployment(settings)
        deployment.store.exists(_NO_OBJECT)
        key = video_key(deployment.graph, run)
        profile = None if key is None else view_run(deployment, key).profile_name
        if profile is not None and needs_model_server(deployment, profile):
            require_model_server(deployment, profile)

    current = CurrentRun()
    task = cache(lambda: RunTask(app, Board(url), worker, rhythm, time.sleep, require_ready, current))
    ensure_home(settings)
    configure_logging(settings.log_format or "text", settings.log_level, worker=worker)
    setup_logging.connect(_logging_stays, weak=False)
    take_over_console()

    @app.task(name=RUN_TASK, Request=HeldRequest, shared=False)
    def run(run_id: str) -> None:
        task()(run_id)

    def prepare(**_: object) -> None:
        left = current.get()
        if left is not None:
            _let_go(url, left, worker)
            current.set(None)
        metrics = ProcessMetrics()
        open_deployment(settings, metrics)
        for module in code:
            importlib.import_module(module)
        task()  # in the child: connections must not be shared with the parent
        if metrics_port is not None:
            _tell(metrics, settings, f"{name}@{socket.gethostname()}", metrics_port)

    worker_process_init.connect(prepare, weak=False)

    def facts() -> WorkerFacts:
        return WorkerFacts(worker, socket.gethostname(), os.getpid(), queues, held_tags(), current.get())

    board, restorer = Board(url), Restorer(app)
    pulse = Pulse(board, facts, RunHealth(board, restorer, rhythm), rhythm)
    farewell = Farewell(board, worker, rhythm)
    worker_shutting_down.connect(farewell.begin, weak=False)
    pulse.start()
    farewell.start()
    keep_scratch_swept(settings.scratch_dir)
    try:
        options = ["--hostname", f"{name}@%h", "--queues", ",".join(queues)]
        # Quiet: the banner would go past the log.
        app.worker_main(["--quiet", "worker", *options, "--without-gossip", "--without-mingle", "--without-heartbeat"])
    finally:
        farewell.stop()
        pulse.stop()
        restorer.close()
        board.close()


def _let_go(url: str, run: str, worker: str) -> None:
    """The child before this one died at a run: whoever takes it up again need not wait for this worker."""
    board = Board(url)
    try:
        board.let_go(run, worker)
    except TrendFlowError as error:  # another worker waits then until this one takes the run or ends
        log.warning("the broker does not answer (%s); run %s stays with this worker", error.error_code, run)
    finally:
        board.close()


def _logging_stays(**_: object) -> None:
    """Celery configures no logging where somebody listens to this signal."""


def _tell(metrics: ProcessMetrics, settings: Settings, worker_id: str, port: int) -> None:
    """Serve the metrics of the worker: its two processes, its host, its GPUs, its requests to the store."""
    host = HostMetrics(metrics, {"scratch": settings.home}, worker_id, this_process_and_its_parent)
    gpus = GpuMetrics.find(metrics)
    try:
        serve(metrics, settings.metrics_host, port, [host.refresh] if gpus is None else [host.refresh, gpus.refresh])
    except OSError as exc:  # runs can be executed without being watched
        log.error("nobody can read the metrics of this worker: port %d cannot be had", port, exc_info=exc)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Execute runs from the queue.")
    parser.add_argument("--name", required=True, help="name of the worker, its own on this host")
    parser.add_argument("--queue", required=True, action="append", choices=DEVICE_QUEUES, help="may be repeated")
    parser.add_argument("--metrics-port", type=int, help="port for Prometheus; without it no metrics are told")
    given = parser.parse_args()
    run_worker(given.name, given.queue, metrics_port=given.metrics_port)


if __name__ == "__main__":
    main()
