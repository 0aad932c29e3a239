"""Smaller batches after running out of memory; never fewer units."""

from __future__ import annotations

import weakref

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
    told: list[tuple[int, int]] = []
    device, runner = (
        Device(1),
        BatchRunner(16, pause_s=0, on_reduced=lambda failed, next_one: told.append((failed, next_one))),
    )
    runner.run(16, device, 16)
    assert told == [(16, 8), (8, 4), (4, 1)]
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
    device, runner = Device(0), BatchRunner(8, pause_s=0)
    with pytest.raises(TrendFlowError, match="out_of_memory"):
        runner.run(8, device, 8)
    assert device.sizes == [8, 4, 2, 1]
    assert runner.attempts == [{"batch": size, "unit": 0} for size in (8, 4, 2, 1)]
    assert runner.record(retries=1) == {
        "effective_batch_size": None,
        "retries_total": 4,
        "oom_retries": 3,
        "queue_wait_ms": None,
        "gpu_mem_peak_mb": None,
    }


@pytest.mark.parametrize("fits", range(1, 34))
def test_a_device_with_room_for_k_units_ends_at_the_largest_step_that_fits(fits: int) -> None:
    """The steps of the policy from 32: 32, 16, 8, 1. What was recorded are the steps that did not fit."""
    device, runner = Device(fits), BatchRunner(32, pause_s=0)
    results = runner.run(100, device, 32)
    expected = 32 if fits >= 32 else 16 if fits >= 16 else 8 if fits >= 8 else 1
    assert runner.effective_batch_size == expected
    assert [attempt["batch"] for attempt in runner.attempts] == [step for step in (32, 16, 8) if step > expected]
    assert [unit for part in results for unit in part] == list(range(100))


def test_memory_that_frames_and_their_preparation_lack_is_reduced_in_the_same_way() -> None:
    """numpy and the decoder raise MemoryError where an engine would raise the project's own error."""
    sizes = []

    def work(start: int, stop: int) -> int:
        sizes.append(stop - start)
        if stop - start > 2:
            raise MemoryError
        return stop - start

    runner = BatchRunner(8, pause_s=0)
    assert sum(runner.run(8, work, 8)) == 8
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert [attempt["batch"] for attempt in runner.attempts] == [8, 4]


def test_nothing_of_the_batch_that_failed_is_held_while_waiting() -> None:
    class Batch:
        pass

    alive: list[weakref.ref[Batch]] = []

    def work(start: int, stop: int) -> None:
        batch = Batch()
        alive.append(weakref.ref(batch))
        if stop - start > 1:
            raise TrendFlowError("out_of_memory", "Too large.")

    held: list[bool] = []
    runner = BatchRunner(2, sleep=lambda seconds: held.append(alive[-1]() is not None))
    runner.run(2, work, 2)
    assert held == [False]


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


def test_every_reduction_comes_two_seconds_after_the_failure() -> None:
    waits: list[float] = []
    runner = BatchRunner(16, sleep=waits.append)
    runner.run(16, Device(1), 16)
    assert waits == [2.0, 2.0, 2.0]
