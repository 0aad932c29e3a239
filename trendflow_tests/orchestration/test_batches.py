"""Batches of real components in real runs: what memory allows, and what happens when it does not suffice.

Runtimes that run out of memory are real models behind a handle that refuses larger batches; the GPU is a FAKE device.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import Profile
from trendflow.contracts.manifest import find_row
from trendflow.models import device as devices
from trendflow.models.catalogue import CatalogueEntry
from trendflow.models.device import DeviceMemory, ProbedDevice
from trendflow.models.interface import ModelHandle
from trendflow.models.resolve import ResolvedModel
from trendflow.orchestration.batches import batch_runner
from trendflow.orchestration.costs import record_costs
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.runs import RunContext
from trendflow.orchestration.wrapper import MODEL_SERVER_WAIT, finalise, persist, run_component, run_status
from trendflow.storage.cost_registry import CostRegistry
from trendflow_tests.models.fake_device import FACTS, FakeDevice
from trendflow_tests.orchestration.runs import (
    Submit,
    edit_profile,
    fewer_pictures,
    only,
    optional,
    problems,
    with_profile,
)

ENTRY = "efficientnet_lite0_224"
FRAMES = 24


@dataclasses.dataclass
class Refusing:
    """A real handle that has memory for `fits` units; `place` is where it claims to run."""

    real: ModelHandle
    fits: int
    entry: CatalogueEntry
    device_used: str = "cpu"
    sizes: list[int] = dataclasses.field(default_factory=list)

    @property
    def used(self) -> Any:
        return self.entry.model_used(self.device_used)

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        (size,) = {len(array) for array in inputs.values()}
        self.sizes.append(size)
        if size > self.fits:
            raise TrendFlowError("out_of_memory", "Too large.")
        return self.real.infer(inputs)


@dataclasses.dataclass
class Unreliable(Refusing):
    """Also fails with `code` the first time that a batch fits; `lost_ms` is how long that batch took."""

    code: str = "triton_timeout"
    lost_ms: float = 0.0

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        started = time.monotonic()
        found = super().infer(inputs)
        if not self.lost_ms:
            self.lost_ms = 1000 * (time.monotonic() - started)
            raise TrendFlowError(self.code, "Gone.")
        return found


class Shelf:
    """A pool that hands out one handle."""

    def __init__(self, handle: ModelHandle) -> None:
        self.handle = handle

    def get(self, entry: CatalogueEntry, device: str | None = None) -> ModelHandle:
        return self.handle


@pytest.fixture
def deployment(deployment: Deployment) -> Deployment:
    with_profile(deployment, only("segmenter", "core_clip"))
    with_profile(deployment, fewer_pictures(FRAMES, FRAMES))
    return deployment


def refusing(deployment: Deployment, fits: int) -> Refusing:
    entry = deployment.catalogue[ENTRY]
    handle = Refusing(deployment.pool.get(entry), fits, entry)
    vars(deployment)["pool"] = Shelf(handle)
    return handle


def processed(run: RunContext, waits: list[float]) -> dict[str, Any]:
    for component in ("segmenter", "core_clip"):
        persist(run, run_component(run, component, sleep=waits.append))
    finalise(run)
    record_costs(run)
    row = find_row(run.manifest(), "core_clip")
    assert row is not None
    return row


def costs(deployment: Deployment) -> list[dict[str, Any]]:
    rows = CostRegistry(deployment.store, deployment.schemas).rows()
    return [row for row in rows if (row["component"], row["component_part"]) == ("core_clip", "whole")]


def test_a_run_that_runs_out_of_memory_ends_with_smaller_batches_and_the_same_result(
    deployment: Deployment, clip: Path, submit: Submit
) -> None:
    plain = submit(deployment, clip)
    untouched = processed(plain, [])
    assert untouched["batching"]["effective_batch_size"] == 8
    expected = deployment.results.read_artifact(plain.run_path, "core_clip")

    handle = refusing(deployment, fits=3)
    run, waits = submit(deployment, clip, force=True), list[float]()
    row = processed(run, waits)
    found = deployment.results.read_artifact(run.run_path, "core_clip")
    units = len(expected.arrays["frame_indices"])
    assert units >= FRAMES
    assert handle.sizes == [8, 4] + [2] * (units // 2) + [1] * (units % 2)
    assert waits == [2.0, 2.0]
    for name, array in expected.arrays.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(found.arrays[name], array, rtol=1e-4, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)

    batching = {
        "effective_batch_size": 2,
        "retries_total": 2,
        "oom_retries": 2,
        "queue_wait_ms": None,
        "gpu_mem_peak_mb": None,
    }
    assert (row["status"], row["retry_count"], row["batching"]) == ("ok", 0, batching)
    assert found.meta["batching"] == batching
    attempts = [{"batch": 8, "unit": 0}, {"batch": 4, "unit": 0}]
    assert found.meta["resource_metrics"] == {"oom_attempts": attempts}
    assert "resource_metrics" not in expected.meta
    assert row["model_signature"] == untouched["model_signature"]
    assert {(cost["knobs"]["batch_size"], cost["gpu_memory_per_task_mb"]) for cost in costs(deployment)} == {
        (8, None),
        (2, None),
    }
    assert problems(deployment, run.run_path) == []


@pytest.mark.parametrize("required", [True, False])
def test_memory_for_not_even_one_unit_is_the_error_of_the_component_and_is_not_tried_again(
    deployment: Deployment, clip: Path, submit: Submit, required: bool
) -> None:
    if not required:
        with_profile(deployment, optional("core_clip"))
    handle = refusing(deployment, fits=0)
    run, waits = submit(deployment, clip), list[float]()
    row = processed(run, waits)
    assert handle.sizes == [8, 4, 2, 1]
    assert waits == [2.0, 2.0, 2.0]
    assert (row["status"], row["error_code"], row["retry_count"]) == ("error", "out_of_memory", 0)
    stored = deployment.results.read_artifact(run.run_path, "core_clip")
    assert dict(stored.arrays) == {}
    assert (row["batching"]["oom_retries"], row["batching"]["effective_batch_size"]) == (3, None)
    assert stored.meta["resource_metrics"]["oom_attempts"] == [{"batch": size, "unit": 0} for size in handle.sizes]
    assert run_status(run, run.manifest()) == ("error" if required else "success")
    assert ("partial_failure" in run.manifest()["run"]["warnings"]) != required
    assert costs(deployment) == []
    assert problems(deployment, run.run_path) == []


def test_a_result_made_in_other_batches_is_reused_and_says_which_models_were_meant(
    deployment: Deployment, clip: Path, submit: Submit
) -> None:
    handle = refusing(deployment, fits=8)
    first = submit(deployment, clip)
    made = processed(first, [])
    entry = deployment.catalogue[ENTRY]
    assert first.manifest()["run"]["resolved_models"] == {
        "image_encoder": {
            "entry": ENTRY,
            "runtime": "inprocess",
            "engine": entry.engine,
            "precision": entry.precision,
            "device": "cpu",
        }
    }
    vars(deployment)["settings"] = deployment.settings.model_copy(update={"batch_size": 3})
    handle.sizes.clear()
    again = processed(submit(deployment, clip), [])
    assert (made["cache_hit"], again["cache_hit"], handle.sizes) == (False, True, [])
    assert again["idempotency_key"] == made["idempotency_key"]


def unreliable(deployment: Deployment, **how: Any) -> Unreliable:
    entry = deployment.catalogue[ENTRY]
    handle = Unreliable(deployment.pool.get(entry), 3, entry, **how)
    vars(deployment)["pool"] = Shelf(handle)
    return handle


def test_batches_that_did_not_fit_stay_on_record_when_the_component_is_tried_again(
    deployment: Deployment, clip: Path, submit: Submit
) -> None:
    handle = unreliable(deployment)
    run, waits = submit(deployment, clip), list[float]()
    row = processed(run, waits)
    assert handle.sizes[:6] == [8, 4, 2, 8, 4, 2]
    assert waits == [2.0, 2.0, MODEL_SERVER_WAIT, 2.0, 2.0]
    assert (row["status"], row["retry_count"]) == ("ok", 1)
    assert (row["batching"]["oom_retries"], row["batching"]["retries_total"]) == (2, 3)
    stored = deployment.results.read_artifact(run.run_path, "core_clip")
    assert [attempt["batch"] for attempt in stored.meta["resource_metrics"]["oom_attempts"]] == [8, 4, 8, 4]
    assert problems(deployment, run.run_path) == []
    (cost,) = costs(deployment)
    lost = row["duration_ms"] - cost["latency_ms_per_unit"] * cost["units"]
    assert lost >= handle.lost_ms - 1 > 1, "what failed before is no cost of a unit"


def test_batches_that_did_not_fit_stay_on_record_when_something_else_ends_the_component(
    deployment: Deployment, clip: Path, submit: Submit
) -> None:
    unreliable(deployment, code="triton_bad_response")
    run = submit(deployment, clip)
    row = processed(run, [])
    assert (row["status"], row["error_code"], row["batching"]["oom_retries"]) == ("error", "triton_bad_response", 2)
    stored = deployment.results.read_artifact(run.run_path, "core_clip")
    assert [attempt["batch"] for attempt in stored.meta["resource_metrics"]["oom_attempts"]] == [8, 4]
    assert problems(deployment, run.run_path) == []


def test_the_knob_bounds_batches_on_the_cpu_and_nothing_else_is_read(
    deployment: Deployment, clip: Path, submit: Submit
) -> None:
    for given, expected in ((None, 8), (5, 5), (64, 64)):
        settings = deployment.settings.model_copy(update={"batch_size": given})
        made = Deployment(settings)
        vars(made)["pool"] = deployment.pool
        run, node = submit(made, clip), made.graph.components["core_clip"]
        runner = batch_runner(run, node, [refusing(made, 1)], (320, 180))
        assert (runner.batch_size, runner.gpu_memory_mb) == (expected, None)
        assert "cost_estimates" not in vars(run)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """The FAKE device, as if a model had been placed on it."""
    found = FakeDevice()
    monkeypatch.setattr(devices, "_probed", {("cuda:0", "onnxruntime"): ProbedDevice(found, FACTS)})
    return found


def on_gpu(deployment: Deployment, **overrides: Any) -> Refusing:
    """The CPU's model, claiming to run on the FAKE device."""
    entry = deployment.catalogue[ENTRY].model_copy(update={"device_policy": "cuda", **overrides})
    deployment.catalogue.entries[ENTRY] = entry
    real = deployment.pool.get(entry.model_copy(update={"device_policy": "cpu"}))
    handle = Refusing(real, 1000, entry, "cuda:0")
    vars(deployment)["pool"] = Shelf(handle)
    return handle


def planned(deployment: Deployment, run: RunContext, handle: ModelHandle) -> int:
    node = deployment.graph.components["core_clip"]
    return batch_runner(run, node, [handle], (160, 120)).batch_size


@pytest.mark.parametrize(
    ("entry_mb", "batch_size", "used", "batch"),
    [
        (0, None, 2_000, 7),  # the graph says 1500 MB: 10 500 / 1500
        (300, None, 2_000, 32),  # the entry says less, and bounds it
        (500, None, 2_000, 21),
        (500, 4, 2_000, 4),
        (500, None, 15_999, 1),
    ],
)
def test_on_a_fake_gpu_its_memory_decides(
    deployment: Deployment,
    clip: Path,
    submit: Submit,
    gpu: FakeDevice,
    entry_mb: int,
    batch_size: int | None,
    used: float,
    batch: int,
) -> None:
    vars(deployment)["settings"] = deployment.settings.model_copy(update={"batch_size": batch_size})
    handle = on_gpu(deployment, gpu_memory_per_task_mb=entry_mb)
    gpu.now = DeviceMemory(16_000, used)
    assert planned(deployment, _resolved(submit(deployment, clip), handle), handle) == batch


def _resolved(run: RunContext, handle: Refusing) -> RunContext:
    """The run as `resolve_models` would leave it on a host with the device."""
    entry = handle.entry
    vars(run)["resolved"] = {"image_encoder": ResolvedModel(entry, entry.engine, entry.precision, "cuda")}
    return run


def test_a_model_beyond_a_fake_gpu_is_refused(
    deployment: Deployment, clip: Path, submit: Submit, gpu: FakeDevice
) -> None:
    handle = on_gpu(deployment, gpu_memory_per_task_mb=16_001)
    run, waits = _resolved(submit(deployment, clip), handle), list[float]()
    row = processed(run, waits)
    assert (row["error_code"], row["retry_count"], waits) == ("insufficient_gpu_memory", 0, [])
    assert handle.sizes == []


def test_what_a_fake_gpu_measured_is_what_the_next_run_plans_with(
    deployment: Deployment, clip: Path, submit: Submit, gpu: FakeDevice, caplog: pytest.LogCaptureFixture
) -> None:
    handle = on_gpu(deployment, gpu_memory_per_task_mb=5_250)
    first = processed(_resolved(submit(deployment, clip), handle), [])
    assert first["error"] is None
    # 14 000 MB are free and 1500 are this process's own; three quarters of that are 11 625 MB.
    assert first["batching"] == first["batching"] | {"effective_batch_size": 2, "gpu_mem_peak_mb": 1_500}
    (row,) = costs(deployment)
    assert row["gpu_memory_per_task_mb"] == 750
    assert row["device_profile"]["gpu"] == FACTS.gpu
    assert (row["device_profile"]["vram_mb"], row["device_profile"]["driver"]) == (FACTS.vram_mb, FACTS.driver)
    assert row["device_profile"]["cuda"] == FACTS.cuda

    again = _resolved(submit(deployment, clip, force=True), handle)
    assert planned(deployment, again, handle) == 15  # 11 625 / 750
    second = processed(again, [])
    assert second["batching"]["effective_batch_size"] == 15
    with_other_frames = batch_runner(again, deployment.graph.components["core_clip"], [handle], (320, 180))
    assert with_other_frames.batch_size == 2, "another bucket was never measured"

    broken = _resolved(submit(deployment, clip, force=True), handle)
    deployment.store.put(f"costs/benchmark_costs_v1/9999-01-01/000000000_{broken.identity.run_id}.json", b"{")
    with caplog.at_level(logging.WARNING):
        assert planned(deployment, broken, handle) == 2
    assert "measured costs cannot be read: artifact_validation_failed" in caplog.text


def test_a_profile_may_map_the_reference_in_torch(deployment: Deployment, clip: Path, submit: Submit) -> None:
    pytest.importorskip("torch")
    onnx = submit(deployment, clip)
    before = processed(onnx, [])

    def torch_encoder(profile: Profile) -> Profile:
        return dataclasses.replace(profile, models={**profile.models, "image_encoder": f"{ENTRY}_torch"})

    edit_profile(deployment, torch_encoder)
    run = submit(deployment, clip)
    after = processed(run, [])
    assert (before["status"], after["status"]) == ("ok", "ok")
    assert not after["cache_hit"]
    assert before["model_signature"] != after["model_signature"]
    assert [(model["model_name"], model["engine"]) for model in after["models_used"]] == [(f"{ENTRY}_torch", "torch")]
    expected = deployment.results.read_artifact(onnx.run_path, "core_clip").arrays["frame_embeddings"]
    found = deployment.results.read_artifact(run.run_path, "core_clip").arrays["frame_embeddings"]
    assert (expected * found).sum(axis=1).min() >= 0.9999
    assert problems(deployment, run.run_path) == []
