"""The probe of a device, against a FAKE driver and a FAKE device: no test here runs anything on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import scipy.signal

from trendflow.contracts.errors import TrendFlowError
from trendflow.models import device as devices
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.device import CudaDevice, Device, DeviceFacts, DeviceMemory, Engine, probe_inputs, visible_device
from trendflow.models.loaded import LoadedModel
from trendflow.models.onnx_graph import serialise
from trendflow.models.onnx_runtime import run_probe
from trendflow.models.probe_graph import probe_graph
from trendflow_tests.models.builders import entry_values
from trendflow_tests.models.fake_device import FACTS, FakeDevice, FakeNvml, engine


def code_of(device: Device) -> str:
    with pytest.raises(TrendFlowError) as caught:
        device.probe()
    return caught.value.error_code


def test_the_shipped_graph_is_the_one_the_code_describes(repo_root: Path) -> None:
    shipped = repo_root / "models" / "weights" / "device_probe.onnx"
    assert shipped.read_bytes() == serialise(probe_graph())


def test_the_graph_is_one_convolution_and_one_matrix_product() -> None:
    given = {name: array.astype(np.float64) for name, array in probe_inputs().items()}
    found = run_probe("cpu")
    np.testing.assert_allclose(found["product"], given["left"] @ given["right"], atol=1e-4)
    for channel, kernel in enumerate(given["kernel"]):
        layers = zip(given["image"][0], kernel, strict=True)
        expected = sum(scipy.signal.correlate2d(image, part, mode="valid") for image, part in layers)
        np.testing.assert_allclose(found["convolution"][0, channel], expected, atol=1e-4)


def test_a_fake_device_that_computes_like_the_cpu_passes() -> None:
    assert CudaDevice("cuda", engine(convolution=1e-4, product=1e-4), FakeNvml()).probe() == FACTS


@pytest.mark.parametrize(
    "change", [{"convolution": 1.0}, {"product": 1.0}, {"product": float("nan")}, {"convolution": float("inf")}]
)
def test_a_fake_device_that_computes_something_else_is_unavailable(change: Mapping[str, float]) -> None:
    assert code_of(CudaDevice("cuda:0", engine(**change), FakeNvml())) == "device_unavailable"


def test_a_fake_device_whose_kernel_fails_is_unavailable_and_the_cpu_does_not_step_in() -> None:
    asked: list[str] = []

    def compute(device: str) -> Mapping[str, np.ndarray]:
        asked.append(device)
        if device != "cpu":
            raise RuntimeError("CUDA failure 222: the provided PTX was compiled with an unsupported toolchain")
        return run_probe("cpu")

    assert code_of(CudaDevice("cuda:1", Engine("onnxruntime", "13.0", compute), FakeNvml())) == "device_unavailable"
    assert asked == ["cpu", "cuda:1"]


@pytest.mark.parametrize(
    ("driver", "built_for", "fits"),
    [
        (13_000, "13.0", True),
        (13_010, "12.8", True),
        (12_080, "12.9", True),
        (12_080, "13.0", False),
        (9_000, None, True),
    ],
)
def test_a_fake_driver_must_know_the_cuda_the_engine_was_built_for(
    driver: int, built_for: str | None, fits: bool
) -> None:
    """Within a major version newer minor versions run on older drivers; a newer major version does not."""
    device = CudaDevice("cuda", engine(cuda=built_for), FakeNvml(driver_cuda=driver))
    if fits:
        assert device.probe().cuda == f"{driver // 1000}.{driver % 1000 // 10}"
    else:
        assert code_of(device) == "device_unavailable"


@pytest.mark.parametrize(
    "function",
    ["nvmlInit", "nvmlDeviceGetHandleByIndex", "nvmlSystemGetCudaDriverVersion_v2", "nvmlDeviceGetMemoryInfo"],
)
def test_a_fake_driver_that_does_not_answer_makes_the_device_unavailable(function: str) -> None:
    assert code_of(CudaDevice("cuda", engine(), FakeNvml(broken=function))) == "device_unavailable"


def test_memory_as_a_fake_driver_tells_it() -> None:
    memory = CudaDevice("cuda", engine(), FakeNvml()).memory()
    assert memory == DeviceMemory(total_mb=16_000, used_mb=2_000, process_mb=1_500)
    assert memory.free_mb == 15_500, "what this process holds is its own to use"
    assert CudaDevice("cuda", engine(), FakeNvml(own=None)).memory().process_mb is None


def test_a_fake_driver_that_lists_no_processes_still_tells_its_memory() -> None:
    """As WSL and some virtual GPUs do: only what this process holds is unknown then."""
    nvml = FakeNvml(broken="nvmlDeviceGetComputeRunningProcesses")
    assert CudaDevice("cuda", engine(), nvml).memory() == DeviceMemory(16_000, 2_000, None)


@pytest.mark.parametrize(
    ("device", "visible", "name"),
    [
        ("cuda", None, "0"),
        ("cuda:2", None, "2"),
        ("cuda", "3,1", "3"),
        ("cuda:1", "3, GPU-5a8f", "GPU-5a8f"),
    ],
)
def test_ordinals_count_what_cuda_may_see(device: str, visible: str | None, name: str) -> None:
    assert visible_device(device, visible) == name


@pytest.mark.parametrize(("device", "used"), [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:3", "cuda:3")])
def test_a_loaded_model_says_which_device_it_is_on(device: str, used: str) -> None:
    """What `device_used` of an artifact must be; the profile names the class alone."""
    assert LoadedModel(CatalogueEntry.model_validate(entry_values()), device).device_used == used


@pytest.mark.parametrize("visible", ["", "0"])
def test_a_hidden_device_is_unavailable(visible: str) -> None:
    with pytest.raises(TrendFlowError, match="device_unavailable"):
        visible_device("cuda:1", visible)


def test_a_fake_device_is_asked_by_the_name_cuda_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-77")
    CudaDevice("cuda:0", engine(), nvml).memory()
    CudaDevice("cuda:1", engine(), nvml).memory()
    assert nvml.handles == [2, "GPU-77"]


def test_a_fake_device_is_probed_once_and_a_failure_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    probes: list[str] = []

    class Failing(FakeDevice):
        def __init__(self, device: str, engine: Engine) -> None:
            super().__init__()
            self.device = device

        def probe(self) -> DeviceFacts:
            probes.append(self.device)
            if len(probes) == 1:
                raise TrendFlowError("device_unavailable", "Busy.")
            return FACTS

    monkeypatch.setattr(devices, "CudaDevice", Failing)
    monkeypatch.setattr(devices, "_probed", {})
    with pytest.raises(TrendFlowError):
        devices.probe("cuda", engine())
    assert devices.probed_device("cuda") is None
    first = devices.probe("cuda", engine())
    assert devices.probe("cuda:0", engine()) is first is devices.probed_device("cuda:0")
    devices.probe("cuda:1", engine())
    assert probes == ["cuda:0", "cuda:0", "cuda:1"]
