"""The accelerator of a worker: what it is, whether it computes right, and how much of its memory is free.

A device is probed before the first model is placed on it. One that fails the probe is `device_unavailable`; nothing is
moved to the CPU instead. Needs the package nvidia-ml-py (extra `cuda`), and only where an entry asks for CUDA.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from trendflow.contracts.errors import TrendFlowError

log = logging.getLogger(__name__)

PROBE_TOLERANCE = 1e-3
"""Largest difference of the probe's results, relative to the largest of the CPU's: a device sums in another order, but
a driver that does not fit gives zeros, noise or nothing."""


@dataclass(frozen=True)
class DeviceMemory:
    """Memory of a device in MB (10⁶ bytes). `used_mb` is everybody's, `process_mb` this process's where it is known."""

    total_mb: float
    used_mb: float
    process_mb: float | None = None

    @property
    def free_mb(self) -> float:
        """What nobody else uses.

        Engines keep what they once allocated and use it again, so what this process holds is not in its own way: else
        a warm worker would plan smaller batches after every run.
        """
        return self.total_mb - self.used_mb + (self.process_mb or 0.0)


@dataclass(frozen=True)
class DeviceFacts:
    """What costs and results depend on.

    `cuda` is the newest CUDA version that the driver takes, `compute_capability` what kernels can be compiled for.
    """

    gpu: str
    vram_mb: float
    driver: str
    cuda: str
    compute_capability: str


class Device(Protocol):
    """An accelerator."""

    def memory(self) -> DeviceMemory:
        """The memory now. Raises `device_unavailable` when the driver does not answer."""
        ...

    def probe(self) -> DeviceFacts:
        """Prove that it can be used. Raises `device_unavailable`, and `dependency_missing` without its library."""
        ...


@dataclass(frozen=True)
class Engine:
    """What a probe needs of the library that runs models: the CUDA it was built for (None: none) and the two kernels.

    `compute` runs one convolution and one matrix product of `probe_inputs` on a device.
    """

    name: str
    cuda: str | None
    compute: Callable[[str], Mapping[str, np.ndarray]]


class CudaDevice:
    """A CUDA device `cuda[:<n>]` as NVML and one engine see it. `nvml` is the module pynvml."""

    def __init__(self, device: str, engine: Engine, nvml: Any = None) -> None:
        self._device, self._engine, self._given = device, engine, nvml

    @functools.cached_property
    def _nvml(self) -> Any:
        nvml = self._given or _nvml_library()
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as exc:
            raise self._unavailable("has no working NVIDIA driver", exc) from exc
        return nvml

    @functools.cached_property
    def _handle(self) -> Any:
        name = visible_device(self._device, os.environ.get("CUDA_VISIBLE_DEVICES"))
        try:
            if name.isdecimal():
                return self._nvml.nvmlDeviceGetHandleByIndex(int(name))
            return self._nvml.nvmlDeviceGetHandleByUUID(name)
        except self._nvml.NVMLError as exc:
            raise self._unavailable("is not on this host", exc) from exc

    def memory(self) -> DeviceMemory:
        nvml, handle = self._nvml, self._handle
        try:
            found = nvml.nvmlDeviceGetMemoryInfo(handle)
        except nvml.NVMLError as exc:
            raise self._unavailable("does not tell its memory", exc) from exc
        return DeviceMemory(found.total / 1e6, found.used / 1e6, self._process_mb())

    def _process_mb(self) -> float | None:
        """What this process holds; None where nobody knows, and then no estimate stands in.

        Some platforms (WSL, some virtual GPUs) do not list processes, and a container with its own process numbers
        lists others: neither makes the device unusable.
        """
        try:
            processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._nvml.NVMLError:
            return None
        known = [process.usedGpuMemory for process in processes if process.pid == os.getpid()]
        return known[0] / 1e6 if known and known[0] is not None else None

    def probe(self) -> DeviceFacts:
        facts = self._facts()
        built_for = self._engine.cuda
        if built_for and int(facts.cuda.partition(".")[0]) < int(built_for.partition(".")[0]):
            raise self._unavailable(
                f"has a driver for CUDA {facts.cuda}, but {self._engine.name} was built for {built_for}"
            )
        self._compare()
        log.info("%s is %s, driver %s, CUDA %s", self._device, facts.gpu, facts.driver, facts.cuda)
        return facts

    def _facts(self) -> DeviceFacts:
        nvml, handle = self._nvml, self._handle
        try:
            newest = nvml.nvmlSystemGetCudaDriverVersion_v2()
            major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
            return DeviceFacts(
                gpu=nvml.nvmlDeviceGetName(handle),
                vram_mb=round(nvml.nvmlDeviceGetMemoryInfo(handle).total / 1e6),
                driver=nvml.nvmlSystemGetDriverVersion(),
                cuda=f"{newest // 1000}.{newest % 1000 // 10}",
                compute_capability=f"{major}.{minor}",
            )
        except nvml.NVMLError as exc:
            raise self._unavailable("does not describe itself", exc) from exc

    def _compare(self) -> None:
        expected = self._engine.compute("cpu")
        try:
            found = self._engine.compute(self._device)
        except TrendFlowError:
            raise
        except Exception as exc:  # engines have no common base for what a broken device makes them raise
            raise self._unavailable(f"cannot run a kernel of {self._engine.name}", exc) from exc
        for name, truth in expected.items():
            if not np.abs(found[name] - truth).max() <= PROBE_TOLERANCE * np.abs(truth).max():  # NaN is no match either
                raise self._unavailable(f"computes another {name} than the CPU with {self._engine.name}")

    def _unavailable(self, problem: str, cause: Exception | None = None) -> TrendFlowError:
        detail = {} if cause is None else {"type": type(cause).__name__}
        return TrendFlowError(
            "device_unavailable", f"The device {self._device} {problem}.", device=self._device, **detail
        )


@dataclass(frozen=True)
class ProbedDevice:
    """A device that passed its probe, with what it said of itself."""

    device: Device
    facts: DeviceFacts


_probed: dict[tuple[str, str], ProbedDevice] = {}


def probe(device: str, engine: Engine) -> ProbedDevice:
    """The device `cuda[:<n>]`, probed with this engine once per process. A failure is not remembered.

    Raises what `Device.probe` raises.
    """
    key = (with_ordinal(device), engine.name)
    if key not in _probed:
        opened = CudaDevice(with_ordinal(device), engine)
        _probed[key] = ProbedDevice(opened, opened.probe())
    return _probed[key]


def probed_device(device: str) -> ProbedDevice | None:
    """The device as this process has probed it, with whatever engine; None when no model was placed on it."""
    return next((found for (name, _), found in _probed.items() if name == with_ordinal(device)), None)


def visible_device(device: str, visible: str | None) -> str:
    """NVML's index or UUID of `cuda[:<n>]`: CUDA counts only what CUDA_VISIBLE_DEVICES names, NVML counts all.

    On a host with unlike GPUs CUDA_DEVICE_ORDER must be PCI_BUS_ID, else CUDA numbers them by speed. Raises
    `device_unavailable` for an ordinal that is not visible.
    """
    ordinal = int(with_ordinal(device).partition(":")[2])
    if visible is None:
        return str(ordinal)
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if ordinal >= len(names):
        raise TrendFlowError(
            "device_unavailable", f"The device {device} is hidden by CUDA_VISIBLE_DEVICES.", device=device
        )
    return names[ordinal]


def cuda_devices(nvml: Any = None) -> list[str]:
    """UUIDs of the GPUs of this host that CUDA_VISIBLE_DEVICES lets through, as that variable takes them.

    None of them is probed. Empty without the NVIDIA library or a working driver: such a host has none to use. `nvml`
    is the module pynvml.
    """
    if nvml is None:
        try:
            nvml = _nvml_library()
        except TrendFlowError:
            return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = None if visible is None else {name.strip() for name in visible.split(",")}
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
        found = [str(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    except nvml.NVMLError:
        return []
    return [uuid for number, uuid in enumerate(found) if names is None or names & {uuid, str(number)}]


def probe_inputs() -> dict[str, np.ndarray]:
    """Random operands: `image` [1,8,32,32] and `kernel` [16,8,3,3] to convolve, `left` [64,256] · `right` [256,32]."""
    random = np.random.default_rng(0)
    shapes = {"image": (1, 8, 32, 32), "kernel": (16, 8, 3, 3), "left": (64, 256), "right": (256, 32)}
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def with_ordinal(device: str) -> str:
    """`cpu` or `cuda:<n>`; a device class without a number means its first device."""
    kind, _, ordinal = device.partition(":")
    return kind if kind == "cpu" else f"{kind}:{ordinal or 0}"


def _nvml_library() -> Any:
    try:
        import pynvml
    except ImportError as exc:
        raise TrendFlowError(
            "dependency_missing",
            "CUDA devices need the package nvidia-ml-py; install the extra with 'pip install trendflow[cuda]'.",
            kind="python_package",
            package="nvidia-ml-py",
        ) from exc
    return pynvml
