"""Metrics of the GPUs that this process can see, through NVML."""

from __future__ import annotations

from typing import Any

from trendflow.metrics.process import ProcessMetrics


class GpuMetrics:
    """`nvml` is the module pynvml, initialised."""

    def __init__(self, metrics: ProcessMetrics, nvml: Any) -> None:
        self._metrics, self._nvml = metrics, nvml

    @classmethod
    def find(cls, metrics: ProcessMetrics) -> GpuMetrics | None:
        """None on a host without the library or without a driver: there is no GPU to tell of."""
        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:
            return None
        return cls(metrics, pynvml)

    def refresh(self) -> None:
        """A GPU that does not answer has no samples, rather than its last ones."""
        nvml = self._nvml
        self._metrics.gpu_utilization.clear()
        self._metrics.gpu_memory.clear()
        for number in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(number)
                utilization = nvml.nvmlDeviceGetUtilizationRates(handle).gpu
                used = nvml.nvmlDeviceGetMemoryInfo(handle).used
            except nvml.NVMLError:
                continue
            self._metrics.gpu_utilization.labels(str(number)).set(utilization)
            self._metrics.gpu_memory.labels(str(number)).set(used)
