"""The memory model of batches, against its formula and FAKE memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.models.batch_plan import planned_batch
from trendflow.models.device import DeviceMemory


@pytest.mark.parametrize(
    ("total", "used", "per_task", "batch"),
    [
        (16_000, 2_000, 1_500, 7),  # a quarter of 14 000 stays free: 10 500 / 1500
        (16_000, 2_000, 1_501, 6),
        (4_000, 1_000, 400, 4),  # a quarter of 3 000 is less than 1024: 1 976 / 400
        (16_000, 15_900, 1_500, 1),  # busy is no error
        (16_000, 16_000, 16_000, 1),
        (24_000, 0, 100, 32),  # the smallest of the limits
        (24_000, 0, 0, 32),
    ],
)
def test_batches_by_hand(total: float, used: float, per_task: float, batch: int) -> None:
    assert planned_batch(DeviceMemory(total, used), per_task, 64, 32) == batch


def test_a_model_larger_than_the_whole_device_is_refused() -> None:
    with pytest.raises(TrendFlowError) as caught:
        planned_batch(DeviceMemory(8_000, 0), 8_001, 8)
    assert caught.value.error_code == "insufficient_gpu_memory"


def test_what_a_warm_process_holds_already_does_not_make_its_batches_smaller() -> None:
    cold, warm = DeviceMemory(16_000, 2_000, 0), DeviceMemory(16_000, 11_000, 9_000)
    assert planned_batch(warm, 1_500, 32) == planned_batch(cold, 1_500, 32) == 7


@given(
    total=st.integers(2_000, 200_000),
    share=st.floats(0, 1),
    per_task=st.integers(1, 2_000),
    limits=st.lists(st.integers(1, 256), min_size=1, max_size=3),
)
def test_a_plan_leaves_the_headroom_and_keeps_every_limit(
    total: int, share: float, per_task: int, limits: list[int]
) -> None:
    memory = DeviceMemory(total, round(total * share))
    batch = planned_batch(memory, per_task, *limits)
    assert 1 <= batch <= min(limits)
    if batch > 1:
        assert memory.free_mb - batch * per_task >= max(1024, memory.free_mb / 4)
    if batch < min(limits):  # one more would not have fitted
        assert memory.free_mb - (batch + 1) * per_task < max(1024, memory.free_mb / 4)
