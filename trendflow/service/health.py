"""Readiness: named checks, each with a limit of its own, all of them run whatever the others find."""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from trendflow.contracts.errors import TrendFlowError, as_typed
from trendflow.service.metrics import Metrics
from trendflow.storage.object_store import ObjectStore

LIMIT_SEC = 10.0
SCRAPE_LIMIT_SEC = 5.0
"""Prometheus gives up a scrape after ten seconds, and then misses all the other metrics too."""


@dataclass(frozen=True)
class Check:
    """`run` returns what it found, in a few words, or raises."""

    name: str
    run: Callable[[], str]


@dataclass(frozen=True)
class Finding:
    """What one check found. `error_code` is None when all is well."""

    name: str
    error_code: str | None
    text: str


def run_checks(checks: Sequence[Check], limit_sec: float = LIMIT_SEC) -> list[Finding]:
    """All findings, in the order of the checks. One that has not answered in time failed with `timeout`."""
    executor = ThreadPoolExecutor(max(1, len(checks)), thread_name_prefix="health")
    until = time.monotonic() + limit_sec
    started = [(check.name, executor.submit(check.run)) for check in checks]
    found = [_finding(name, answer, until - time.monotonic(), limit_sec) for name, answer in started]
    executor.shutdown(wait=False)
    return found


class HealthMetrics:
    """Readiness as a metric. The checks write to the store and read weights, so they run every `every_sec` at most."""

    def __init__(self, metrics: Metrics, checks: Sequence[Check], every_sec: float = 30.0) -> None:
        self._metrics, self._checks, self._every_sec = metrics, checks, every_sec
        self._lock, self._checked_at = threading.Lock(), -math.inf

    def refresh(self) -> None:
        with self._lock:
            if time.monotonic() - self._checked_at < self._every_sec:
                return
            for finding in run_checks(self._checks, SCRAPE_LIMIT_SEC):
                self._metrics.health.labels(finding.name).set(finding.error_code is None)
            self._checked_at = time.monotonic()


def store_check(store: ObjectStore) -> Check:
    """The store answers, and its conditional writes hold."""

    def run() -> str:
        store.probe()
        return "conditional writes proven"

    return Check("store", run)


def queue_check(broker_url: str | None, timeout_sec: float = 3.0) -> Check:
    """The broker accepts the password of its address and answers PING."""

    def run() -> str:
        if broker_url is None:
            return "no broker is configured"
        with closing(_broker(broker_url, timeout_sec)) as broker:
            try:
                broker.ping()
            except redis.AuthenticationError:  # a ConnectionError, so it goes first; its text names the user
                raise TrendFlowError("config_invalid", "The broker refuses the password.") from None
            except (redis.ConnectionError, redis.TimeoutError, OSError) as exc:
                raise TrendFlowError("network_error", "The broker does not answer.", type=type(exc).__name__) from exc
            except redis.RedisError as exc:
                raise TrendFlowError(
                    "network_error", "What answers at the broker's address is no broker.", type=type(exc).__name__
                ) from exc
        return "the broker answers"

    return Check("queue", run)


def _broker(url: str, timeout_sec: float) -> redis.Redis:
    once = Retry(NoBackoff(), 0)  # whoever asks for readiness asks again
    return redis.Redis.from_url(url, socket_timeout=timeout_sec, socket_connect_timeout=timeout_sec, retry=once)


def disk_check(folder: Path, min_free_gb: float) -> Check:
    """The disk of scratch files has space for new runs."""

    def run() -> str:
        free_gb = shutil.disk_usage(folder).free / 1e9
        if free_gb < min_free_gb:
            raise TrendFlowError("storage_unavailable", f"Only {free_gb:.1f} GB are free, {min_free_gb:g} are needed.")
        return f"{free_gb:.0f} GB free"

    return Check("disk", run)


def _finding(name: str, answer: Future[str], wait_sec: float, limit_sec: float) -> Finding:
    try:
        return Finding(name, None, answer.result(max(0.0, wait_sec)))
    except FutureTimeout:
        return Finding(name, "timeout", f"No answer within {limit_sec:g} s.")
    except Exception as exc:  # every check must get its line, whatever breaks
        error = as_typed(exc)
        return Finding(name, error.error_code, error.message)
