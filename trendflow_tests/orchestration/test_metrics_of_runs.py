"""Every metric that tells of runs moves with runs that are really executed; only the GPU is simulated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from trendflow.alarms.book import AlarmBook
from trendflow.alarms.rules import Alarm
from trendflow.components.base import ComponentInputs
from trendflow.config import Settings
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import update_run
from trendflow.metrics.gpu import GpuMetrics
from trendflow.metrics.host import HostMetrics
from trendflow.models.pool import ModelPool
from trendflow.orchestration import wrapper
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import RunContext
from trendflow.service.assembly import component_places
from trendflow.service.health import Check, HealthMetrics
from trendflow.service.metrics import Metrics
from trendflow.service.metrics_feed import MetricsFeed
from trendflow.state.global_manager import GlobalManager
from trendflow.state.run_manager import RunManager
from trendflow_tests.metrics import Samples, samples_of, total
from trendflow_tests.orchestration.probe import FEATURE, Probe, add_probes, value
from trendflow_tests.orchestration.runs import Here, Submit


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def deployment(tmp_path: Path, models_dir: Path, pool: ModelPool, metrics: Metrics) -> Deployment:
    """A deployment whose requests to the store are measured, as a worker's are."""
    made = Deployment(Settings(home=tmp_path / "home", models=models_dir, onnx_threads=1), metrics)
    vars(made)["pool"] = pool
    return made


class Nvml:
    """SYNTHETIC: one GPU."""

    class NVMLError(Exception):
        pass

    nvmlDeviceGetCount = staticmethod(lambda: 1)
    nvmlDeviceGetHandleByIndex = staticmethod(lambda number: number)
    nvmlDeviceGetUtilizationRates = staticmethod(lambda handle: SimpleNamespace(gpu=37))
    nvmlDeviceGetMemoryInfo = staticmethod(lambda handle: SimpleNamespace(used=5_000_000_000))


class Work:
    """Fails once of something that passes, then needs smaller batches."""

    def __init__(self) -> None:
        self.tries = 0

    def __call__(self, inputs: ComponentInputs) -> Artifact:
        self.tries += 1
        if self.tries == 1:
            raise TrendFlowError("timeout", "The test says so.", scope="component")
        inputs.runner.pause_s = 0.0
        inputs.runner.run(4, self._units, 4)
        return replace(value(1.0), meta={"batching": inputs.runner.record()})  # as of a component with a model

    @staticmethod
    def _units(start: int, stop: int) -> None:
        if stop - start > 2:
            raise TrendFlowError("out_of_memory", "Too large.")


def nothing(inputs: ComponentInputs) -> Artifact:
    return Artifact.empty("no_faces_in_video", feature_arrays({FEATURE: float("nan")}))


def broken(inputs: ComponentInputs) -> Artifact:
    raise TrendFlowError("video_unreadable", "The test says so.")


def conflicting(run: RunContext) -> None:
    """Two writers change the manifest at once; the second one tries again."""
    others: list[int] = []

    def change(manifest: dict) -> dict:
        if not others:
            others.append(1)
            run.deployment.results.update_manifest(run.run_path, lambda found: update_run(found, retry_count=7))
        return update_run(manifest, warnings=[])

    run.deployment.results.update_manifest(run.run_path, change)


def test_all_of_them_move(
    deployment: Deployment, metrics: Metrics, clip: Path, submit: Submit, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrapper, "RETRY_WAITS", (0.0,))
    probes = {
        "works": Probe(Work()),
        "finds_nothing": Probe(nothing, required=False),
        "breaks": Probe(broken, required=False),
    }
    add_probes(deployment, probes)
    book = AlarmBook(deployment.store, deployment.schemas)
    feed = MetricsFeed(metrics, deployment.states, deployment.results, book, component_places(deployment.graph))
    sources = (
        feed.refresh,
        HealthMetrics(metrics, [Check("store", lambda: "fine")]).refresh,
        HostMetrics(metrics, {"scratch": deployment.settings.home}).refresh,
        GpuMetrics(metrics, Nvml()).refresh,
    )

    def look() -> Samples:
        for source in sources:
            source()
        return samples_of(metrics.text().decode())

    level1 = GlobalManager.open(deployment.states, holder="test")
    look()  # from here on runs are counted
    first, second = submit(deployment, clip), submit(deployment, clip)
    for run, status in ((first, "running"), (second, "pending")):
        level1.run_status(run.run_path, status, priority="high")
    busy = look()
    assert (total(busy, "active_runs"), total(busy, "queue_length", priority="high")) == (1, 1)
    assert here(first) == "success"
    level1.run_status(first.run_path, "success")

    lost = RunManager.open(deployment.states, second.run_path, holder="lost")
    assert lost is not None
    lost.begin(worker="worker-1", device=None, resolved_models={})  # and then it is killed
    assert here(second) == "success"
    for status in ("running", "error"):  # the rate is that of level 1, whatever the run's own state
        level1.run_status(second.run_path, status)
    conflicting(second)
    book.update([Alarm("error_code", "timeout", 0.2, 0.05, 40)], at=deployment.states.clock.utc())
    found = look()

    assert (total(found, "active_runs"), total(found, "queue_length")) == (0, 0)
    assert (total(found, "runs_total", status="success"), total(found, "runs_total", status="error")) == (1, 1)
    assert total(found, "runs_success_rate") == 0.5
    assert total(found, "queue_wait_seconds_count", priority="high") == 2
    assert total(found, "crashed_runs_total") == 1
    assert total(found, "processing_seconds_count", component="segmenter") == 1
    assert total(found, "component_stage_seconds_count", component="breaks", status="error") == 2
    assert total(found, "failures_total", component="breaks", error_type="video_unreadable") == 2
    assert total(found, "empties_total", component="finds_nothing", empty_reason="no_faces_in_video") >= 1
    assert total(found, "cache_total", component="works", result="miss") == 1
    assert total(found, "cache_total", component="works", result="hit") == 1
    assert total(found, "retries_total", component="works", error_type="timeout") == 1
    assert total(found, "oom_retries_total", component="works", error_type="out_of_memory") == 1
    assert total(found, "effective_batch_size_sum", component="works") == 2
    assert total(found, "store_request_seconds_count", op="get") > total(busy, "store_request_seconds_count", op="get")
    assert total(found, "store_conflicts_total", object="manifest.json") == 1
    assert total(found, "alarms", rule="error_code", subject="timeout") == 1
    assert total(found, "health", check="store") == 1
    assert total(found, "memory_bytes", worker_id="api") > 2**20
    assert (total(found, "gpu_utilization_percent"), total(found, "gpu_memory_bytes", gpu="0")) == (37, 5e9)
    assert [family.name for family in metrics.registry.collect() if not family.samples] == []
    told = " ".join(text for _, labels in found for pair in labels for text in pair)
    assert first.identity.run_id not in told
    assert first.identity.video_id not in told
