"""The image encoder on a Triton server of its own: what the way there costs, and what dynamic batching gains.

Client and server share the processor, so whatever else the machine does falls on both. Processor time is measured
beside wall time: it hardly depends on the neighbours, and on a busy machine it is what decides about throughput.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from benchmarks.common import MODELS, Row, interleaved, median_ratio, spread
from trendflow.config import load_settings
from trendflow.models.catalogue import Catalogue, CatalogueEntry
from trendflow.models.pool import ModelPool
from trendflow.models.store import WeightsStore
from trendflow.models.triton import server
from trendflow.models.triton.connection import Session, TritonConnection
from trendflow.models.triton.environment import ServerEnvironment, ensure_environment, open_environment
from trendflow.models.triton.repository import CONFIG, write_repository

ENTRY = "efficientnet_lite0_224"
GOAL = 1.10
FRAMES = 16
REPEATS = 15
CLIENTS = (1, 2, 4, 8, 16)
REFERENCE_CLIENTS = 4
"""Clients of the server without batching whose 95th percentile is the limit for both."""
REQUESTS = 96
LOAD_REPEATS = 3


@dataclass(frozen=True)
class Load:
    """What a load came to: requests per second, 95th percentile in ms, processor time of client and server in ms."""

    rate: float
    p95_ms: float
    cpu_ms: float


@contextmanager
def running_server(folder: Path, entry: CatalogueEntry, *, batching: bool = True) -> Iterator[server.ServerState]:
    """A server that serves this entry alone."""
    repository = write_repository([entry], WeightsStore(MODELS), folder / "repository")
    if not batching:
        path = repository.path / entry.name / CONFIG
        config = text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
        config.ClearField("dynamic_batching")
        path.write_text(text_format.MessageToString(config), encoding="utf-8")
    state = server.start(folder, _environment(), repository)
    try:
        yield state
    finally:
        server.stop(folder, state)


def _environment() -> ServerEnvironment:
    settings = load_settings()
    if settings.triton_env is not None:
        return open_environment(settings.triton_env)
    return ensure_environment(settings.triton_dir / "env")


def cpu_seconds(state: server.ServerState) -> float:
    """Processor time that this process and the server's have used so far."""
    process = psutil.Process(state.pid)
    members = [process, *process.children(recursive=True)]
    return time.process_time() + sum(sum(member.cpu_times()[:2]) for member in members)


def load(state: server.ServerState, entry: CatalogueEntry, picture: np.ndarray, clients: int) -> Load:
    """The load of clients that each ask for one picture after another."""
    session = Session(state.grpc_url, max_in_flight=clients)
    latencies: list[float] = []

    def ask() -> None:
        for _ in range(REQUESTS // clients):
            start = time.perf_counter()
            session.result(session.send(entry, {"images": picture}, {"B": 1}))
            latencies.append((time.perf_counter() - start) * 1000)

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    cpu, start = cpu_seconds(state), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, cpu = time.perf_counter() - start, cpu_seconds(state) - cpu
    session.close()
    count = len(latencies)
    return Load(count / seconds, float(np.percentile(latencies, 95)), cpu / count * 1000)


def measure() -> list[Row]:
    entry = Catalogue.load()[ENTRY]
    images = np.random.default_rng(0).uniform(-1, 1, (FRAMES, 3, 224, 224)).astype(np.float32)
    with (
        tempfile.TemporaryDirectory(prefix="trendflow-bench-") as folder,
        running_server(Path(folder) / "batching", entry) as batching,
        running_server(Path(folder) / "single", entry, batching=False) as single,
    ):
        rows = _way(batching, entry, images) + _batching(batching, single, entry.on("triton"), images[:1])
    return [*rows, _model_alone(entry, images)]


def _way(state: server.ServerState, entry: CatalogueEntry, images: np.ndarray) -> list[Row]:
    """One batch in process, over the wire and through shared memory."""
    wire, shared = (TritonConnection(lambda: state.grpc_url, shared_memory=flag) for flag in (False, True))
    handles = {
        "in process": ModelPool(MODELS).get(entry),
        "gRPC": ModelPool(MODELS, triton=lambda: wire).get(entry.on("triton")),
        "shared memory": ModelPool(MODELS, triton=lambda: shared).get(entry.on("triton")),
    }
    cpu: dict[str, list[float]] = {name: [] for name in handles}

    def asking(name: str) -> Callable[[], None]:
        def ask() -> None:
            before = cpu_seconds(state)
            handles[name].infer({"images": images})
            cpu[name].append(cpu_seconds(state) - before)

        return ask

    times = interleaved({name: asking(name) for name in handles}, REPEATS)
    for connection in (wire, shared):
        connection.close()
    ms = {name: statistics.median(values) * 1000 for name, values in times.items()}
    rows = []
    for name in ("gRPC", "shared memory"):
        ratios = [a / b for a, b in zip(times[name], times["in process"], strict=True)]
        cpu_ratio = sum(cpu[name][1:]) / sum(cpu["in process"][1:])  # the first turn warms up here too
        rows.append(
            Row(
                f"Triton through {name} ÷ in process",
                f"{FRAMES} frames, {entry.name}",
                median_ratio(times[name], times["in process"]),
                "×",
                GOAL,
                f"{ms[name]:.0f} ms against {ms['in process']:.0f} ms, turns {spread(ratios)}; "
                f"processor time {cpu_ratio:.2f} ×",
            )
        )
    return rows


def _batching(
    batching: server.ServerState, single: server.ServerState, entry: CatalogueEntry, picture: np.ndarray
) -> list[Row]:
    """Requests per second of one picture each, within one 95th percentile.

    Both servers get the same choice of loads, else the better of several would be compared with one.
    """
    for state in (batching, single):
        load(state, entry, picture, REFERENCE_CLIENTS)
    gains, notes, alone, together = [], [], [], []
    for _ in range(LOAD_REPEATS):
        # In turns, so that what else the machine does falls on both.
        pairs = {
            clients: (load(single, entry, picture, clients), load(batching, entry, picture, clients))
            for clients in CLIENTS
        }
        limit = pairs[REFERENCE_CLIENTS][0].p95_ms
        without, with_batching = (
            _best({clients: pair[side] for clients, pair in pairs.items()}, limit) for side in (0, 1)
        )
        alone.append(pairs[max(CLIENTS)][0].cpu_ms)
        together.append(pairs[max(CLIENTS)][1].cpu_ms)
        gains.append(with_batching[1].rate / without[1].rate)
        notes.append(f"{_said(*with_batching)} against {_said(*without)}, limit {limit:.0f} ms")
    return [
        Row(
            "requests/s with ÷ without dynamic batching, p95 within one limit",
            entry.name,
            statistics.median(gains),
            "×",
            note=f"turns {spread(gains)}; {notes[gains.index(statistics.median(gains))]}",
        ),
        Row(
            f"processor time per request without ÷ with dynamic batching, {max(CLIENTS)} clients",
            entry.name,
            statistics.median(alone) / statistics.median(together),
            "×",
            note=f"{statistics.median(alone):.1f} ms against {statistics.median(together):.1f} ms",
        ),
    ]


def _best(loads: dict[int, Load], limit_ms: float) -> tuple[int, Load]:
    """The load with most requests per second among those within the limit; the quickest one where none is."""
    within = {clients: found for clients, found in loads.items() if found.p95_ms <= limit_ms}
    if not within:
        return min(loads.items(), key=lambda item: item[1].p95_ms)
    return max(within.items(), key=lambda item: item[1].rate)


def _said(clients: int, found: Load) -> str:
    return f"{found.rate:.0f}/s at {found.p95_ms:.0f} ms with {clients} clients"


def _model_alone(entry: CatalogueEntry, images: np.ndarray) -> Row:
    """What a batch saves of the model's own work; the rest that batching can gain is the cost of single requests."""
    handle = ModelPool(MODELS, threads=1).get(entry)

    def cpu_of(work: Callable[[], object]) -> float:
        before = time.process_time()
        work()
        return time.process_time() - before

    def one_by_one() -> None:
        for row in range(len(images)):
            handle.infer({"images": images[row : row + 1]})

    turns = [(cpu_of(one_by_one), cpu_of(lambda: handle.infer({"images": images}))) for _ in range(REPEATS)]
    ratios = [single / batch for single, batch in turns[1:]]
    return Row(
        f"processor time of {FRAMES} frames one by one ÷ as one batch, in process",
        entry.name,
        statistics.median(ratios),
        "×",
        note=f"turns {spread(ratios)}; one thread, no server",
    )
