"""The workers of the fleet: they execute the runs that the daemon puts into the queue."""

from __future__ import annotations

import os
import socket
import sys
from functools import partial

from trendflow.contracts.errors import TrendFlowError
from trendflow.fleet.environment import DEPLOYMENT_KEYS, application_environment
from trendflow.fleet.infrastructure import SERVERS
from trendflow.fleet.service import Blueprint, Health, Service, Site
from trendflow.fleet.state import read_state
from trendflow.fleet.valkey import broker_url
from trendflow.models.device import cuda_devices
from trendflow.orchestration.queue.board import Board
from trendflow.orchestration.queue.names import DeviceQueue, Rhythm

REPLICAS = "worker"
"""Under which name the fleet keeps the number of CPU workers."""
_METRICS = "metrics"

# Its child imports everything that a run may need, and then it beats.
_START_LIMIT_S = 300.0
# Asked to end, a worker takes nothing more and lets its run end. One that takes longer is killed with its worker, as
# if the machine had failed, and goes on at its last finished component when a worker is there again. Asking it to stop
# would make Dagster record a failure.
_STOP_LIMIT_S = 30.0
# Fewer would mean none while one is started again; beyond that, one per two cores: a run has stretches on one core, and
# others that use several.
_LEAST, _MOST = 2, 8


def default_count() -> int:
    """CPU workers of this machine when nobody says how many."""
    return min(_MOST, max(_LEAST, len(os.sched_getaffinity(0)) // 2))


def workers(count: int) -> list[Blueprint]:
    """`worker-1` … for the CPU queue, and one for the GPU queue per GPU that this machine has."""
    cpu = [_worker(f"worker-{number}", "cpu", {}) for number in range(1, count + 1)]
    gpu = [
        _worker(f"worker-gpu-{number}", "gpu", {"CUDA_VISIBLE_DEVICES": device})
        for number, device in enumerate(cuda_devices(), start=1)
    ]
    return cpu + gpu


def _worker(name: str, queue: DeviceQueue, environment: dict[str, str]) -> Blueprint:
    return Blueprint(
        name=name,
        build=partial(_build, name, queue, environment),
        ports=(_METRICS,),
        shared_secrets=tuple(DEPLOYMENT_KEYS.values()),
        needs=SERVERS,
    )


def _build(name: str, queue: DeviceQueue, environment: dict[str, str], site: Site) -> Service:
    return Service(
        command=(
            *(sys.executable, "-m", "trendflow.orchestration.queue.worker", "--name", name, "--queue", queue),
            *("--metrics-port", str(site.port(name, _METRICS))),
        ),
        environment={**application_environment(site), **environment},
        folder=site.service_folder(name),
        health=_beats(name, site),
        start_limit_s=_START_LIMIT_S,
        stop_limit_s=_STOP_LIMIT_S,
    )


def _beats(name: str, site: Site) -> Health:
    """The process that the fleet started, and not one before it, has spoken at the broker a moment ago."""

    def check() -> str | None:
        process = read_state(site.folder).process(name)
        if process is None:
            return "it was not started"
        own = f"{name}@{socket.gethostname()}:{process.process.pid}:"
        board = Board(broker_url(site))
        try:
            found = [seen for seen in board.workers() if seen.facts.worker.startswith(own)]
        except TrendFlowError as error:
            return error.message.removesuffix(".").lower()
        finally:
            board.close()
        if not found:
            return "it has not reached the broker"
        silent_s = found[0].silent_s
        return None if silent_s <= Rhythm().silent_s else f"it is silent for {silent_s:.0f} seconds"

    return check
