"""Liveness and readiness."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis

from trendflow.contracts.errors import TrendFlowError
from trendflow.loopback import HOST
from trendflow.service.health import Check, HealthMetrics, disk_check, queue_check, run_checks, store_check
from trendflow.service.metrics import Metrics
from trendflow_tests.metrics import value
from trendflow_tests.orchestration.queue.stage import Broker
from trendflow_tests.ports import held_ports
from trendflow_tests.service.deployment import client, make_parts, samples, served
from trendflow_tests.submission.desks import Deployment

THREADS = 40  # in which the server answers what is not written for its event loop


def test_liveness_does_not_wait_for_threads(behind: Deployment) -> None:
    """As many requests as there are threads wait for a check that does not come back."""
    release, waiting = threading.Event(), threading.Semaphore(0)

    def stuck() -> None:
        waiting.release()
        release.wait(600)

    with (
        served(make_parts(behind), metric_sources=[stuck]) as address,
        client(address) as api,
        ThreadPoolExecutor(THREADS) as callers,
    ):
        answers = [callers.submit(api.get, "/metrics") for _ in range(THREADS)]
        try:
            for _ in range(THREADS):
                assert waiting.acquire(timeout=600)
            assert api.get("/health/live").json() == {"status": "ok"}
        finally:
            release.set()
        assert {answer.result().status_code for answer in answers} == {200}


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
