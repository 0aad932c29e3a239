"""Smaller batches after running out of memory; never fewer units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.batching import BatchRunner


class Device:
    """Work that fails above `limit` units per batch, as memory does."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.sizes: list[int] = []

    def __call__(self, start: int, stop: int) -> list[int]:
        self.sizes.append(stop - start)
        if stop - start > self.limit:
            raise TrendFlowError("out_of_memory", "Too large.")
        return list(range(start, stop))


@given(units=st.integers(0, 60), batch=st.integers(1, 20), maximum=st.integers(1, 20), limit=st.integers(1, 20))
def test_every_unit_is_done_once_and_in_order(units: int, batch: int, maximum: int, limit: int) -> None:
    device, runner = Device(limit), BatchRunner(batch, pause_s=0)
    results = runner.run(units, device, maximum)
    assert [unit for part in results for unit in part] == list(range(units))
    assert max(device.sizes, default=0) <= min(batch, maximum)
    assert runner.oom_retries <= 3
    assert runner.record()["oom_retries"] == sum(size > limit for size in device.sizes)


def test_the_reductions_are_a_half_a_quarter_and_one() -> None:
    device, runner = Device(1), BatchRunner(16, pause_s=0)
    runner.run(16, device, 16)
    assert device.sizes == [16, 8, 4] + [1] * 16
    assert runner.effective_batch_size == 1
    assert [attempt["batch"] for attempt in runner.attempts] == [16, 8, 4]


def test_finished_units_are_kept() -> None:
    device, runner = Device(8), BatchRunner(8, pause_s=0)
    runner.run(8, device, 8)
    device.limit = 4
    device.sizes.clear()
    runner.run(16, device, 8)
    assert device.sizes == [8, 4, 4, 4, 4]


def test_a_short_last_batch_is_reduced_from_its_own_size() -> None:
    device = Device(1)
    BatchRunner(8, pause_s=0).run(3, device, 8)
    assert device.sizes == [3, 2, 1, 1, 1]


def test_failure_at_one_unit_is_final() -> None:
    device = Device(0)
    with pytest.raises(TrendFlowError, match="out_of_memory") as caught:
        BatchRunner(8, pause_s=0).run(8, device, 8)
    assert device.sizes == [8, 4, 2, 1]
    assert caught.value.detail["oom_attempts"] == [{"batch": size, "unit": 0} for size in (8, 4, 2, 1)]


@pytest.mark.parametrize(("runs", "size"), [([0], None), ([3], 3), ([20], 8), ([20, 5], 5), ([5, 20, 0], 5)])
def test_the_batch_that_is_reported_is_one_that_was_run(runs: list[int], size: int | None) -> None:
    device, runner = Device(20), BatchRunner(8, pause_s=0)
    for units in runs:
        runner.run(units, device, 8)
    assert runner.record()["effective_batch_size"] == size
    assert size is None or size in device.sizes


def test_the_peak_of_the_device_is_taken_after_every_batch() -> None:
    held = iter([300.0, None, 700.0, 500.0])
    runner = BatchRunner(2, gpu_memory_mb=lambda: next(held))
    runner.run(8, Device(2), 2)
    assert runner.record()["gpu_mem_peak_mb"] == 700.0
    assert BatchRunner().record()["gpu_mem_peak_mb"] is None


def test_other_errors_are_not_retried() -> None:
    calls = []

    def work(start: int, stop: int) -> None:
        calls.append((start, stop))
        raise TrendFlowError("model_spec_invalid", "Wrong.")

    with pytest.raises(TrendFlowError, match="model_spec_invalid"):
        BatchRunner(8, pause_s=0).run(8, work, 8)
    assert calls == [(0, 8)]


def test_the_pause_of_the_policy_is_two_seconds() -> None:
    assert BatchRunner().pause_s == 2.0
