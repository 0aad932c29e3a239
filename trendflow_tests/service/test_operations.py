"""Liveness, readiness, metrics, and what administrators may do."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from trendflow.alarms.book import AlarmBook
from trendflow.alarms.rules import Alarm
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import upsert_row
from trendflow.loopback import HOST
from trendflow.metrics.gpu import GpuMetrics
from trendflow.metrics.host import HostMetrics
from trendflow.service.app import create_app
from trendflow.service.health import Check, HealthMetrics, disk_check, queue_check, run_checks, store_check
from trendflow.service.metrics import Metrics
from trendflow.service.server import make_server
from trendflow.service.users import Users
from trendflow.state.run_manager import RunManager
from trendflow.storage.object_store import ObjectNotFound
from trendflow.storage.result_store import ResultStore
from trendflow_tests.orchestration.queue.stage import Broker
from trendflow_tests.ports import held_ports
from trendflow_tests.service.certificates import make_certificate
from trendflow_tests.service.deployment import begun_run, body, client, make_parts, served
from trendflow_tests.service.test_submission import assert_refused
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


def samples(api: httpx.Client) -> dict[tuple[str, frozenset], float]:
    """Every sample by its name and labels, as Prometheus' own parser reads them."""
    text = api.get("/metrics").raise_for_status().text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Mapping[tuple[str, frozenset], float], name: str, **labels: str) -> float | None:
    return found.get((f"dataprocessor_{name}", frozenset(labels.items())))


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


def test_readiness_has_a_line_per_check() -> None:
    def broken() -> str:
        raise TrendFlowError("triton_unavailable", "The model server does not answer.")

    behind = Deployment()
    good = (store_check(behind.store), Check("device", lambda: "cpu"))
    with served(make_parts(behind, checks=good)) as address, client(address) as api:
        answer = api.get("/health")
        assert answer.status_code == 200
        assert answer.json()["status"] == "ready"
        assert [line["name"] for line in answer.json()["checks"]] == ["store", "device"]
    with served(make_parts(behind, checks=(*good, Check("triton", broken)))) as address, client(address) as api:
        found = samples(api)
        assert [value(found, "health", check=name) for name in ("store", "device", "triton")] == [1, 1, 0]
        answer = api.get("/health")
        assert answer.status_code == 503
        assert answer.json()["checks"][-1] == {
            "name": "triton",
            "error_code": "triton_unavailable",
            "text": "The model server does not answer.",
        }
        assert api.get("/health/live").status_code == 200


def test_a_check_that_hangs_and_one_that_breaks_do_not_hide_the_others() -> None:
    release = threading.Event()

    def hanging() -> str:
        release.wait(600)
        return "late"

    def broken() -> str:
        raise KeyError("secret")

    checks = [Check("hangs", hanging), Check("breaks", broken), Check("works", lambda: "fine")]
    try:
        found = run_checks(checks, limit_sec=2)
    finally:
        release.set()
    assert [finding.error_code for finding in found] == ["timeout", "internal_error", None]
    assert "secret" not in found[1].text


def test_frequent_looks_at_the_metrics_do_not_repeat_the_checks() -> None:
    looks: list[int] = []

    def counted() -> str:
        looks.append(1)
        return "fine"

    with served(make_parts(Deployment(), checks=[Check("works", counted)])) as address, client(address) as api:
        for _ in range(3):
            assert value(samples(api), "health", check="works") == 1
    metrics = Metrics()
    always = HealthMetrics(metrics, [Check("works", counted)], every_sec=0)
    always.refresh()
    always.refresh()
    assert len(looks) == 3


def test_a_full_disk_is_not_ready(tmp_path: Path) -> None:
    (full,) = run_checks([disk_check(tmp_path, 1e9)])
    assert full.error_code == "storage_unavailable"


class Answering:
    """A server that tells every caller one thing, whatever it is asked; with nothing to tell it does not listen."""

    def __init__(self, said: bytes | None) -> None:
        self._said, self._listener = said, socket.socket()
        self._listener.bind((HOST, 0))
        self.address = f"redis://user:secret@{HOST}:{self._listener.getsockname()[1]}/0"
        if said is not None:
            self._listener.listen()
            threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(self._said or b"")
                while self._said and connection.recv(65536):
                    pass  # closed with something unread, the connection would lose the answer


@pytest.mark.parametrize(
    ("said", "code", "text"),
    [
        (None, "network_error", "The broker does not answer."),
        (b"", "network_error", "The broker does not answer."),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "network_error", "What answers at the broker's address is no broker."),
        (b"-WRONGPASS invalid username-password pair\r\n", "config_invalid", "The broker refuses the password."),
    ],
)
def test_an_open_port_is_no_broker(said: bytes | None, code: str, text: str) -> None:
    server = Answering(said)
    (found,) = run_checks([queue_check(server.address, timeout_sec=60)], limit_sec=600)
    assert (found.error_code, found.text) == (code, text)


def test_a_broker_is_ready_for_those_who_know_its_password(tmp_path: Path) -> None:
    with held_ports(1) as (port,):
        broker = Broker(tmp_path, port)
        broker.start()
        try:
            with contextlib.closing(redis.Redis.from_url(broker.url)) as anybody:
                anybody.config_set("requirepass", "right")
            checks = [queue_check(f"redis://{user}{HOST}:{port}/0", 60) for user in (":right@", ":wrong@", "")]
            found = run_checks(checks, limit_sec=600)
        finally:
            broker.kill()
    assert [finding.error_code for finding in found] == [None, "config_invalid", "config_invalid"]


@dataclass
class Keeper:
    """Notes what was asked of it."""

    asked: list[Any] = field(default_factory=list)

    def request(self, platform_id: str, video_id: str, *, by: str) -> str:
        self.asked.append((platform_id, video_id, by))
        return "deletion-1"

    def report(self, request_id: str) -> Mapping[str, Any] | None:
        return {"done": True} if request_id == "deletion-1" else None

    def cleanup(self, *, dry_run: bool) -> Mapping[str, Any]:
        self.asked.append(dry_run)
        return {"bytes": 0}


def test_deletion_and_retention_belong_to_administrators() -> None:
    keeper = Keeper()
    parts = make_parts(Deployment(), erasure=keeper, retention=keeper)
    with served(parts) as address, client(address) as admin, client(address, "premium-token") as other:
        assert_refused(other.delete("/api/v1/videos/upload/my-video"), 403, "input_constraint_violated")
        refused = other.post("/api/v1/admin/retention/cleanup", json={"dry_run": True})
        assert_refused(refused, 403, "input_constraint_violated")
        assert keeper.asked == []

        answer = admin.delete("/api/v1/videos/upload/my-video")
        assert answer.status_code == 202
        assert admin.get(answer.json()["report_url"]).json() == {"done": True}
        assert_refused(admin.get("/api/v1/deletions/other"), 404, "dependency_missing")
        assert_refused(admin.delete("/api/v1/videos/vimeo/my-video"), 400, "input_constraint_violated")
        assert admin.post("/api/v1/admin/retention/cleanup", json={"dry_run": True}).json() == {"bytes": 0}
    assert keeper.asked == [("upload", "my-video", "user-admin"), True]


def test_what_a_deployment_does_not_have(api: httpx.Client) -> None:
    assert_refused(api.delete("/api/v1/videos/upload/my-video"), 501, "config_invalid")
    assert_refused(api.post("/api/v1/admin/retention/cleanup", json={}), 501, "config_invalid")


def test_users_come_from_a_file_that_holds_no_token(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    file = tmp_path / "users.json"
    file.write_text(json.dumps([{"token_sha256": digest, "user_id": "ann", "tier": "premium"}]))
    users = Users.load(file)
    found = users.of_token(b"secret")
    assert found is not None
    assert (found.user_id, found.tier, found.admin) == ("ann", "premium", False)
    assert users.of_token(b"Secret") is None
    for broken in ("{}", "[]", "no json", json.dumps([{"token_sha256": "x", "user_id": "ann"}])):
        file.write_text(broken)
        with pytest.raises(TrendFlowError, match="config_invalid"):
            Users.load(file)


def test_the_server_listens_on_the_loopback_interface_unless_told() -> None:
    app = create_app(make_parts(Deployment()))
    assert make_server(app).config.host == HOST == "127.0.0.1"
    with pytest.raises(TrendFlowError, match="config_invalid"):
        make_server(app, client_authority=Path("authority.pem"))


def test_callers_need_a_certificate_of_the_authority(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path / "server", "service.example.org")
    trusted, stranger = (make_certificate(tmp_path / name, name) for name in ("backend", "stranger"))
    tls = {"certificate": certificate, "key": key, "client_authority": trusted[0]}
    with served(make_parts(Deployment()), tls=tls) as address:
        for files, welcome in ((trusted, True), (stranger, False), (None, False)):
            context = ssl.create_default_context(cafile=str(certificate))
            if files is not None:
                context.load_cert_chain(*files)
            with httpx.Client(verify=context, trust_env=False, timeout=60) as caller:
                if welcome:
                    assert caller.get(f"{address}/health/live").status_code == 200
                else:
                    with pytest.raises(httpx.TransportError):
                        caller.get(f"{address}/health/live")
