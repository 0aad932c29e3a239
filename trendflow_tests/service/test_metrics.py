"""What the metrics tell, and that they begin and count as the alerts need it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from trendflow.alarms.book import AlarmBook
from trendflow.alarms.rules import Alarm
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import upsert_row
from trendflow.metrics.gpu import GpuMetrics
from trendflow.metrics.host import HostMetrics
from trendflow.state.run_manager import RunManager
from trendflow.storage.object_store import ObjectNotFound
from trendflow.storage.result_store import ResultStore
from trendflow_tests.metrics import value
from trendflow_tests.service.deployment import begun_run, body, client, make_parts, samples, served
from trendflow_tests.state.runs import SCHEMAS, finished
from trendflow_tests.storage.runs import first_manifest, store_component
from trendflow_tests.submission.desks import USER, Deployment, draft, submission_id

NAMES = {  # of the specification, `alarms` and `health`, with the suffix that Prometheus gives to counters
    "queue_length": {"priority"},
    "queue_wait_seconds": {"priority"},
    "processing_seconds": {"processor", "component"},
    "component_stage_seconds": {"worker_id", "component", "component_kind", "status"},
    "runs_total": {"status"},
    "runs_success_rate": set(),
    "failures_total": {"processor", "component", "error_type"},
    "empties_total": {"component", "empty_reason"},
    "cache_total": {"component", "result"},
    "retries_total": {"component", "error_type"},
    "oom_retries_total": {"component", "error_type"},
    "effective_batch_size": {"component"},
    "alarms": {"rule", "subject", "severity"},
    "health": {"check"},
    "active_runs": set(),
    "crashed_runs_total": set(),
    "memory_bytes": {"worker_id"},
    "gpu_utilization_percent": {"gpu"},
    "gpu_memory_bytes": {"gpu"},
    "host_cpu_usage_ratio": set(),
    "host_load1": set(),
    "host_memory_available_bytes": set(),
    "host_disk_free_bytes": {"mountpoint"},
    "host_num_cpus": set(),
    "store_request_seconds": {"op"},
    "store_conflicts_total": {"object"},
}


def test_names_and_labels_are_those_of_the_specification() -> None:
    metrics = make_parts(Deployment()).metrics
    families = {family.name: family for family in metrics.registry.collect()}
    declared = {f"dataprocessor_{name.removesuffix('_total')}": labels for name, labels in NAMES.items()}
    assert set(families) == set(declared)
    known = {
        collector._name: set(collector._labelnames)
        for collector in metrics.registry._collector_to_names  # the library has no public way to ask
    }
    assert known == declared


def test_series_of_closed_sets_begin_at_zero(api: httpx.Client) -> None:
    """Before anything happened: of a series that begins with 1, `increase()` in the alerts would never see the step."""
    found = samples(api)
    assert {status: value(found, "runs_total", status=status) for status in ("success", "error", "cancelled")} == {
        "success": 0,
        "error": 0,
        "cancelled": 0,
    }
    for priority in ("high", "normal", "low"):
        assert value(found, "queue_wait_seconds_count", priority=priority) == 0
    assert value(found, "crashed_runs_total") == 0
    assert value(found, "retries_total", component="run", error_type="timeout") == 0


@pytest.mark.parametrize("looks", ["between", "before_and_after", "restarted"])
def test_an_attempt_counts_what_it_did_and_no_more(behind: Deployment, looks: str) -> None:
    """A run fails, is launched again and succeeds: one retry and no crash, whether somebody looks in between or not.

    After a restart of the service only the second attempt is left to count.
    """
    parts = make_parts(behind)
    with served(parts) as address, client(address) as api:
        samples(api)
        message = draft("again", 0, 1)
        behind.desk.submit(submission_id("again"), USER, [message])
        manager = begun_run(behind, message)
        finished(manager, "segmenter")
        manager.component_started("core_clip", owner="worker-1")
        manager.retry_scheduled("core_clip", "timeout", 1.0)
        manager.component_started("core_clip", owner="worker-1")
        manager.fail(TrendFlowError("timeout", "It took too long."))
        behind.level1()[1].run_status(message.run_path, "error")
        first = samples(api) if looks == "between" else {}
        restarted = contextlib.ExitStack()
        if looks == "restarted":
            api = restarted.enter_context(client(restarted.enter_context(served(make_parts(behind)))))
            samples(api)

        with restarted:
            behind.clock.seconds = 60
            manager.relaunch_scheduled("timeout", 1, 30.0)
            again = RunManager.open(behind.states, message.run_path, holder="worker-2")
            assert again is not None
            again.begin(worker="worker-2", device=None, resolved_models={})
            for name in ("core_clip", "cut_detection", "loudness_extractor"):
                finished(again, name)
            again.succeed()
            for status in ("queued", "running", "success"):
                behind.level1()[1].run_status(message.run_path, status)
            found = samples(api)
    old = 0 if looks == "restarted" else 1
    assert value(found, "crashed_runs_total") == 0
    assert value(found, "retries_total", component="run", error_type="timeout") == 1
    assert (value(found, "retries_total", component="core_clip", error_type="timeout") or 0) == old
    assert value(found, "runs_total", status="success") == 1
    assert (value(found, "cache_total", component="segmenter", result="miss") or 0) == old
    assert value(found, "cache_total", component="core_clip", result="miss") == 1
    if first:
        assert value(first, "retries_total", component="run", error_type="timeout") == 0
        assert value(first, "retries_total", component="core_clip", error_type="timeout") == 1
        failed = {"processor": "visual", "component": "core_clip", "error_type": "timeout"}
        assert value(found, "failures_total", **failed) == value(first, "failures_total", **failed) == 1


def test_a_lost_worker_is_a_crash(api: httpx.Client, behind: Deployment) -> None:
    samples(api)
    message = draft("lost", 0, 1)
    behind.desk.submit(submission_id("lost"), USER, [message])
    begun_run(behind, message)
    taken_over = RunManager.open(behind.states, message.run_path, holder="worker-2")
    assert taken_over is not None
    taken_over.begin(worker="worker-2", device=None, resolved_models={})
    taken_over.fail(TrendFlowError("timeout", "It took too long."))
    behind.level1()[1].run_status(message.run_path, "error")
    assert value(samples(api), "crashed_runs_total") == 1


def test_metrics_follow_the_runs(api: httpx.Client, behind: Deployment) -> None:
    first = samples(api)  # from here on runs are counted
    assert value(first, "queue_length", priority="normal") == 0
    assert value(first, "runs_success_rate") == 1
    run_id = api.post("/api/v1/process", json=body(priority="low")).json()["run_id"]
    message = behind.inbox.message_of(run_id)
    assert message is not None
    behind.level1()[0].step()
    assert value(samples(api), "queue_length", priority="low") == 1

    behind.clock.seconds = 20
    manager = begun_run(behind, message)
    assert value(samples(api), "active_runs") == 1
    manager.component_started("segmenter", owner="worker-1")
    behind.clock.seconds = 27
    manager.component_finished("segmenter", "success", ["segmenter/segmenter.npz"])
    manager.component_finished("core_clip", "success", ["core_clip/core_clip.npz"], cache_hit=True)
    manager.component_started("loudness_extractor", owner="worker-1")
    manager.oom_reduced("loudness_extractor", 8, 4)
    manager.retry_scheduled("loudness_extractor", "timeout", 1.0)
    manager.component_started("loudness_extractor", owner="worker-1")
    manager.component_failed("loudness_extractor", TrendFlowError("timeout", "It took too long."), [])
    finished(manager, "cut_detection", "empty")
    manager.succeed()
    results = ResultStore(behind.store)
    results.create_manifest(first_manifest(message.identity))
    for name, reason, batch in (("cut_detection", "video_too_short", None), ("core_clip", None, 8)):
        row = store_component(results, message.identity, name, {"values": np.ones(3)})
        changed = {**row, "empty_reason": reason, "batching": {**row["batching"], "effective_batch_size": batch}}
        results.update_manifest(message.run_path, lambda found, changed=changed: upsert_row(found, changed))
    behind.level1()[1].run_status(message.run_path, "success")

    for _ in range(2):  # looking again counts nothing again
        found = samples(api)
    assert value(found, "runs_total", status="success") == 1
    assert value(found, "active_runs") == 0
    assert value(found, "queue_wait_seconds_sum", priority="low") == 20
    assert value(found, "processing_seconds_sum", processor="segmenter", component="segmenter") == 7
    stage = {"worker_id": "worker-1", "component": "segmenter", "component_kind": "core", "status": "success"}
    assert value(found, "component_stage_seconds_count", **stage) == 1
    assert value(found, "cache_total", component="core_clip", result="hit") == 1
    assert value(found, "cache_total", component="segmenter", result="miss") == 1
    failed = {"processor": "audio", "component": "loudness_extractor", "error_type": "timeout"}
    assert value(found, "failures_total", **failed) == 1
    assert value(found, "retries_total", component="loudness_extractor", error_type="timeout") == 1
    assert value(found, "oom_retries_total", component="loudness_extractor", error_type="out_of_memory") == 1
    assert value(found, "empties_total", component="cut_detection", empty_reason="video_too_short") == 1
    assert value(found, "effective_batch_size_sum", component="core_clip") == 8
    text = json.dumps([sorted(labels) for _, labels in found])
    for name in (run_id, message.identity.video_id, message.user_id):
        assert name not in text


def test_alarms_that_stand_are_told_until_they_end(api: httpx.Client, behind: Deployment) -> None:
    book = AlarmBook(behind.store, SCHEMAS)
    labels = {"rule": "error_code", "subject": "timeout", "severity": "error"}
    assert value(samples(api), "alarms", **labels) is None
    book.update([Alarm("error_code", "timeout", 0.06, 0.05, 200, error_code="timeout")], at=behind.clock.utc())
    assert value(samples(api), "alarms", **labels) == 1
    book.update([], at=behind.clock.utc())
    assert value(samples(api), "alarms", **labels) is None


def test_the_success_rate_is_that_of_an_hour(api: httpx.Client, behind: Deployment) -> None:
    manager = behind.level1()[1]
    for seconds, name, status in ((0, "a", "error"), (1800, "b", "success"), (2000, "c", "error")):
        behind.clock.seconds = seconds
        for to in ("pending", "queued", "running", status):
            manager.run_status(f"upload/video-{name}/run-{name}", to)
    behind.clock.seconds = 4000
    assert value(samples(api), "runs_success_rate") == 0.5


def test_the_host_as_the_kernel_sees_it(tmp_path: Path) -> None:
    parts = make_parts(Deployment())
    host = HostMetrics(parts.metrics, {"scratch": tmp_path})
    with served(parts, metric_sources=[host.refresh]) as address, client(address) as api:
        found = samples(api)
    available = value(found, "host_memory_available_bytes")
    resident = value(found, "memory_bytes", worker_id="api")
    assert available is not None
    assert resident is not None
    assert 2**20 < resident < 2**40
    assert 2**20 < available < 2**50
    assert (value(found, "host_num_cpus") or 0) >= 1
    assert (value(found, "host_disk_free_bytes", mountpoint="scratch") or 0) > 0
    assert 0 <= (value(found, "host_cpu_usage_ratio") or 0) <= 1


class FakeNvml:
    """Two GPUs, the second of which does not answer."""

    class NVMLError(Exception):
        pass

    def nvmlDeviceGetCount(self) -> int:  # names of the library
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> int:
        return number

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        if handle == 1:
            raise self.NVMLError
        return SimpleNamespace(gpu=37)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(used=5_000_000_000)


def test_gpus_are_told_by_their_number() -> None:
    parts = make_parts(Deployment())
    gpus = GpuMetrics(parts.metrics, FakeNvml())
    with served(parts, metric_sources=[gpus.refresh]) as address, client(address) as api:
        found = samples(api)
    assert value(found, "gpu_utilization_percent", gpu="0") == 37
    assert value(found, "gpu_memory_bytes", gpu="0") == 5_000_000_000
    assert value(found, "gpu_memory_bytes", gpu="1") is None


def test_an_outage_does_not_hide_the_host() -> None:
    def down() -> None:
        raise TrendFlowError("storage_unavailable", "The store does not answer.")

    parts = make_parts(Deployment())
    host = HostMetrics(parts.metrics, {})
    with served(parts, metric_sources=[down, host.refresh]) as address, client(address) as api:
        assert (value(samples(api), "host_num_cpus") or 0) >= 1


def test_requests_to_the_store_are_timed_and_told_by_kind() -> None:
    behind = Deployment()
    parts = make_parts(behind)
    store = behind.store.observed(parts.metrics)
    assert [store.put_if_absent("result_store/youtube/secret-video/run/manifest.json", b"") for _ in range(3)] == [
        True,
        False,
        False,
    ]
    assert [store.put_if_absent("index/runs/youtube/secret-video/x.json", b"") for _ in range(2)] == [True, False]
    with pytest.raises(ObjectNotFound):
        store.get("nothing")
    with served(parts) as address, client(address) as api:
        found = samples(api)
        assert "secret-video" not in api.get("/metrics").text
    assert value(found, "store_request_seconds_count", op="put_if_absent") == 5
    assert value(found, "store_request_seconds_count", op="get") == 1
    assert value(found, "store_conflicts_total", object="manifest.json") == 2
    assert value(found, "store_conflicts_total", object="index") == 1
