"""A FAKE accelerator: a driver that answers from memory, and a device that is whatever a test says. No GPU is used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.models import onnx_runtime, torch_runtime
from trendflow.models.device import DeviceFacts, DeviceMemory, Engine
from trendflow.models.onnx_runtime import run_probe

FACTS = DeviceFacts(gpu="Fake GPU 16GB", vram_mb=16_000, driver="580.1", cuda="13.0", compute_capability="9.0")
MEMORY = DeviceMemory(total_mb=16_000, used_mb=2_000, process_mb=1_500)


@dataclass
class FakeDevice:
    """Implements `Device`."""

    now: DeviceMemory = MEMORY
    facts: DeviceFacts = FACTS
    asked: int = 0

    def memory(self) -> DeviceMemory:
        self.asked += 1
        return self.now

    def probe(self) -> DeviceFacts:
        return self.facts


class NvmlError(Exception):
    pass


@dataclass
class FakeNvml:
    """The part of pynvml that a `CudaDevice` asks. `broken` is the name of the function that fails."""

    driver_cuda: int = 13_000
    total: int = 16_000_000_000
    used: int = 2_000_000_000
    own: int | None = 1_500_000_000
    broken: str | None = None
    handles: list[object] = field(default_factory=list)
    NVMLError = NvmlError

    def _answer(self, name: str) -> None:
        if name == self.broken:
            raise NvmlError(name)

    def nvmlInit(self) -> None:
        self._answer("nvmlInit")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        self._answer("nvmlDeviceGetHandleByIndex")
        self.handles.append(index)
        return index

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetUUID(self, handle: object) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> object:
        self.handles.append(uuid)
        return uuid

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        self._answer("nvmlSystemGetCudaDriverVersion_v2")
        return self.driver_cuda

    def nvmlDeviceGetCudaComputeCapability(self, handle: object) -> tuple[int, int]:
        return 9, 0

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"

    def nvmlDeviceGetName(self, handle: object) -> str:
        return "Fake GPU 16GB"

    def nvmlDeviceGetMemoryInfo(self, handle: object) -> SimpleNamespace:
        self._answer("nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(total=self.total, used=self.used)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> list[SimpleNamespace]:
        self._answer("nvmlDeviceGetComputeRunningProcesses")
        others = [SimpleNamespace(pid=os.getpid() + 1, usedGpuMemory=7)]
        return others if self.own is None else [*others, SimpleNamespace(pid=os.getpid(), usedGpuMemory=self.own)]


def engine(cuda: str | None = "13.0", **changes: float) -> Engine:
    """onnxruntime, whose results on a device other than the CPU are the CPU's, plus `changes` by output."""

    def compute(device: str) -> Mapping[str, np.ndarray]:
        found = run_probe("cpu")
        return found if device == "cpu" else {name: found[name] + np.float32(changes.get(name, 0)) for name in found}

    return Engine("onnxruntime", cuda, compute)


def without_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make of this a host on which no model can be executed."""

    def refuse(device: str) -> None:
        raise TrendFlowError("device_unavailable", "There is no such device here.")

    for runtime in (onnx_runtime, torch_runtime):
        monkeypatch.setattr(runtime, "require_device", refuse)
