"""What a planner makes of cost rows. All rows are SYNTHETIC."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.costs import estimates, with_validity
from trendflow_tests.contracts.cost_rows import CPU, row


def test_a_row_ends_where_the_next_of_its_series_begins() -> None:
    rows = [row(3, 1.0), row(1, 1.0), row(2, 1.0, input_bucket="640x360")]
    found = {(item["input_bucket"], item["valid_from"][14:16]): item["valid_to"] for item in with_validity(rows)}
    assert found == {
        ("426x240", "01"): "2026-01-01T00:03:00.000Z",
        ("426x240", "03"): None,
        ("640x360", "02"): None,
    }
    assert all(item["valid_to"] is None for item in rows)


@given(latencies=st.lists(st.floats(0, 1e6), min_size=1, max_size=120))
def test_the_estimate_is_the_median_of_the_last_fifty(latencies: list[float]) -> None:
    rows = [row(minute, latency) for minute, latency in enumerate(latencies)]
    random.Random(1).shuffle(rows)
    [estimate] = estimates(rows)
    assert estimate.rows == min(len(latencies), 50)
    assert estimate.latency_ms_per_unit == pytest.approx(float(np.median(latencies[-50:])))


@pytest.mark.parametrize(
    "changed",
    [
        {"component": "core_optical_flow"},
        {"component_part": "substep:inference"},
        {"input_bucket": "640x360"},
        {"model_signature": "1" * 64},
        {"producer_version": "1.0.1"},
        {"device_profile": {**CPU, "cpu_count": 4}},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_is_not_comparable_is_not_mixed(changed: dict[str, Any]) -> None:
    assert sorted(found.latency_ms_per_unit for found in estimates([row(1, 5.0), row(2, 7.0, **changed)])) == [5, 7]


def test_memory_that_was_not_measured_is_no_zero() -> None:
    assert estimates([row(1, 5.0)])[0].cpu_rss_peak_mb is None
    assert estimates([row(1, 5.0), row(2, 5.0, cpu_rss_peak_mb=300.0)])[0].cpu_rss_peak_mb == 300
