"""The Prometheus metrics. Labels come from closed sets: never ids of videos, runs or users."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

PREFIX = "dataprocessor"
_SECONDS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 7200)
_STORE_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30, 60)
_NAMED = ("/manifest.json", "/state_level1_global.json", "/run_state.json")
"""Objects that several writers share; all others are told by the folder they lie in."""
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """All metrics of a deployment, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queue_length = self._gauge("queue_length", "Runs that wait.", "priority")
        self.queue_wait = self._histogram("queue_wait_seconds", "From acceptance to the start.", _SECONDS, "priority")
        self.processing = self._histogram(
            "processing_seconds", "Time of components that were computed.", _SECONDS, "processor", "component"
        )
        self.component_stage = self._histogram(
            "component_stage_seconds",
            "Time of components by how they ended and who computed them.",
            _SECONDS,
            "worker_id",
            "component",
            "component_kind",
            "status",
        )
        self.runs = self._counter("runs", "Runs that ended.", "status")
        self.success_rate = self._gauge("runs_success_rate", "Successful share of the runs of the last hour.")
        self.failures = self._counter("failures", "Components that failed.", "processor", "component", "error_type")
        self.empties = self._counter("empties", "Components without a result.", "component", "empty_reason")
        self.cache = self._counter("cache", "Reuse of results.", "component", "result")
        self.retries = self._counter("retries", "Retries of components.", "component", "error_type")
        self.oom_retries = self._counter("oom_retries", "Batches that had to shrink.", "component", "error_type")
        self.batch_size = self._histogram("effective_batch_size", "Units per batch.", _BATCHES, "component")
        self.active_runs = self._gauge("active_runs", "Runs that are being executed.")
        self.crashed_runs = self._counter("crashed_runs", "Runs whose worker was lost.")
        self.memory = self._gauge("memory_bytes", "Resident memory of a process.", "worker_id")
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
