"""Where models go on GPUs, against a SIMULATED driver: no test here has a GPU."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.device import DeviceMemory
from trendflow.models.triton.config import difference
from trendflow.models.triton.placement import place, visible_gpus
from trendflow.models.triton.repository import config_text
from trendflow_tests.models.fake_device import FakeNvml, NvmlError
from trendflow_tests.triton import double_entry


def model(name: str, need_mb: int, device: str = "cuda") -> CatalogueEntry:
    return double_entry(name, device_policy=device, gpu_memory_per_task_mb=need_mb)[0]


def gpus(*total_mb: float, used_mb: float = 0) -> dict[int, DeviceMemory]:
    return {ordinal: DeviceMemory(total, used_mb) for ordinal, total in enumerate(total_mb)}


def refused(*entries: CatalogueEntry, on: dict[int, DeviceMemory]) -> TrendFlowError:
    with pytest.raises(TrendFlowError) as error:
        place(entries, on)
    return error.value


@dataclass
class SomeGpus(FakeNvml):
    """A driver of a host with `count` GPUs of 16 GB."""

    count: int = 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:
        if index >= self.count:
            raise NvmlError("invalid index")
        return super().nvmlDeviceGetHandleByIndex(index)


def test_models_that_fit_together_are_on_every_gpu() -> None:
    entries = [model("a", 9_000), model("b", 7_000), model("c", 90_000, device="cpu")]
    assert place(entries, gpus(16_000, 16_000)) == {"a": (0, 1), "b": (0, 1)}


def test_models_that_do_not_are_shared_out_largest_first() -> None:
    entries = [model("small", 3_000), model("large", 12_000), model("middle", 9_000)]
    # large → the 16 GB one (4 left), middle → the 12 GB one (3 left), small → where 4 are left.
    assert place(entries, gpus(12_000, 16_000)) == {"large": (1,), "middle": (0,), "small": (1,)}


def test_a_model_that_no_gpu_can_hold_is_refused() -> None:
    error = refused(model("a", 1_000), model("huge", 16_001), on=gpus(16_000, 16_000))
    assert error.error_code == "insufficient_gpu_memory"
    assert error.detail["entry"] == "huge"


def test_models_that_are_too_many_are_refused_though_each_would_fit() -> None:
    error = refused(model("a", 9_000), model("b", 9_000), on=gpus(16_000))
    assert (error.error_code, error.detail["needed_mb"]) == ("insufficient_gpu_memory", 18_000)


def test_memory_that_others_use_now_refuses_nothing() -> None:
    assert place([model("a", 16_000)], gpus(16_000, used_mb=15_999)) == {"a": (0,)}


def test_a_host_without_gpus_serves_models_for_the_cpu_alone() -> None:
    assert place([model("a", 1, device="cpu")], {}) == {}
    assert refused(model("a", 1), on={}).error_code == "device_unavailable"


@pytest.mark.parametrize("count", [1, 3])
def test_the_driver_is_asked_for_all_it_has(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = visible_gpus(SomeGpus(count=count))
    assert {ordinal: memory.total_mb for ordinal, memory in found.items()} == dict.fromkeys(range(count), 16_000)


def test_hidden_gpus_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    driver = SomeGpus(count=4)
    assert set(visible_gpus(driver)) == {0, 1}
    assert driver.handles == [2, 0]


def test_a_driver_that_does_not_work_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(TrendFlowError) as error:
        visible_gpus(SomeGpus(broken="nvmlInit"))
    assert error.value.error_code == "device_unavailable"


def test_a_configuration_names_the_gpus_and_clients_do_not_care_which() -> None:
    entry = model("a", 1)
    config = text_format.Parse(config_text(entry, "onnxruntime", gpus=(1, 3)), ModelConfig())
    (group,) = config.instance_group
    assert (group.count, list(group.gpus)) == (1, [1, 3])
    assert difference(entry, config) is None
