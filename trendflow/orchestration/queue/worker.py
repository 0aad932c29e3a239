"""`python -m trendflow.orchestration.queue.worker`: one warm worker."""

from __future__ import annotations

import argparse
import importlib
import os
import socket
import time
import uuid
from collections.abc import Sequence
from functools import cache

from celery.signals import worker_process_init

from trendflow.config import load_settings
from trendflow.orchestration.queue.board import Board, WorkerFacts
from trendflow.orchestration.queue.celery_app import RUN_TASK, broker_url, make_app
from trendflow.orchestration.queue.held import HeldRequest, held_tags
from trendflow.orchestration.queue.names import DEVICE_QUEUES, PRIORITIES, DeviceQueue, Rhythm, queue_name
from trendflow.orchestration.queue.pulse import Pulse
from trendflow.orchestration.queue.run_health import Restorer, RunHealth
from trendflow.orchestration.queue.run_task import RunTask

CODE = ("trendflow.definitions",)
"""What the child imports before its first run."""


def run_worker(
    name: str, devices: Sequence[DeviceQueue], rhythm: Rhythm | None = None, code: Sequence[str] = CODE
) -> None:
    """Work until a signal ends it: SIGTERM lets the run end first, SIGQUIT gives its message back.

    The worker's id names this very process, for a worker that is started again is another one. Raises `config_invalid`
    without a broker, `storage_unavailable` when it does not answer.
    """
    settings, rhythm = load_settings(), rhythm or Rhythm()
    url = broker_url(settings)
    app = make_app(url, settings.max_duration_sec)
    queues = tuple(queue_name(device, priority) for device in devices for priority in PRIORITIES)
    worker = f"{name}@{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    task = cache(lambda: RunTask(app, Board(url), worker, time.sleep))

    @app.task(name=RUN_TASK, Request=HeldRequest, shared=False)
    def run(run_id: str) -> None:
        task()(run_id)

    def prepare(**_: object) -> None:
        for module in code:
            importlib.import_module(module)
        task()  # in the child: connections must not be shared with the parent

    worker_process_init.connect(prepare, weak=False)

    def facts() -> WorkerFacts:
        return WorkerFacts(worker, socket.gethostname(), os.getpid(), queues, held_tags())

    board, restorer = Board(url), Restorer(app)
    pulse = Pulse(board, facts, RunHealth(board, restorer, rhythm), rhythm)
    pulse.start()
    try:
        arguments = ["--hostname", f"{name}@%h", "--queues", ",".join(queues), "--loglevel", "INFO"]
        app.worker_main(["worker", *arguments, "--without-gossip", "--without-mingle", "--without-heartbeat"])
    finally:
        pulse.stop()
        restorer.close()
        board.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Execute runs from the queue.")
    parser.add_argument("--name", required=True, help="name of the worker, its own on this host")
    parser.add_argument("--queue", required=True, action="append", choices=DEVICE_QUEUES, help="may be repeated")
    given = parser.parse_args()
    run_worker(given.name, given.queue)


if __name__ == "__main__":
    main()
