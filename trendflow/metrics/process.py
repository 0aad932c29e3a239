"""The metrics of one process. Labels come from closed sets: never ids of videos, runs or users."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

PREFIX = "dataprocessor"
_STORE_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 60)
_NAMED = ("/manifest.json", "/state_level1_global.json", "/run_state.json")
"""Objects that several writers share; all others are told by the folder they lie in."""


class ProcessMetrics:
    """The metrics, in a registry of their own. Hears of requests to the store (`StoreObserver`)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.memory = self._gauge("memory_bytes", "Resident memory of a process with its children.", "worker_id")
        self.gpu_utilization = self._gauge("gpu_utilization_percent", "Utilization of a GPU.", "gpu")
        self.gpu_memory = self._gauge("gpu_memory_bytes", "Memory in use on a GPU.", "gpu")
        self.cpu_usage = self._gauge("host_cpu_usage_ratio", "Busy share of the CPUs since the last look.")
        self.load1 = self._gauge("host_load1", "Load average of a minute.")
        self.memory_available = self._gauge("host_memory_available_bytes", "Memory that can be given out.")
        self.disk_free = self._gauge("host_disk_free_bytes", "Free space.", "mountpoint")
        self.cpus = self._gauge("host_num_cpus", "CPUs of the host.")
        self.store_requests = self._histogram(
            "store_request_seconds", "Time of requests to the store.", _STORE_SECONDS, "op"
        )
        self.store_conflicts = self._counter("store_conflicts", "Writes that another one was before.", "object")

    def requested(self, op: str, seconds: float) -> None:
        """A request to the store ended."""
        self.store_requests.labels(op).observe(seconds)

    def lost(self, key: str) -> None:
        """A write to the store came too late. The label is the kind of object: the key would name a run."""
        folder, _, name = key.partition("/")
        kind = name.rpartition("/")[2] if name.endswith(_NAMED) else folder
        self.store_conflicts.labels(kind).inc()

    def text(self) -> bytes:
        """The exposition format of Prometheus."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)  # exposed with the suffix `_total`

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, labels, buckets=buckets, registry=self.registry)
