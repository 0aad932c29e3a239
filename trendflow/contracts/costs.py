"""Rows of the cost registry (`benchmark_costs_v1`): what executions cost, and what a planner makes of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from trendflow.contracts.canonical import canonical_json

COSTS_SCHEMA = "benchmark_costs_v1"
WHOLE = "whole"
PLANNED_FROM = 50
"""A planner looks at this many of the latest rows of a series."""

CostRow = Mapping[str, Any]


@dataclass(frozen=True)
class CostEstimate:
    """The latest rows of one series: same component, part, input bucket, models, code and device."""

    component: str
    part: str
    unit: str
    bucket: str
    model_signature: str
    producer_version: str
    device_profile: Mapping[str, Any]
    rows: int
    """How many rows the medians are of, at most `PLANNED_FROM`."""
    latency_ms_per_unit: float
    units: float
    """Median number of units of an execution."""
    cpu_rss_peak_mb: float | None
    """Median of the rows that measured it, None when none did."""
    gpu_memory_per_task_mb: float | None
    measured_until: str


def series_key(row: CostRow) -> bytes:
    """Rows with equal keys measure the same thing on the same kind of device."""
    names = ("component", "component_part", "input_bucket", "model_signature", "producer_version", "device_profile")
    return canonical_json({name: row[name] for name in names})


def with_validity(rows: Iterable[CostRow]) -> Iterator[dict[str, Any]]:
    """The rows with `valid_to`: each ends where the next one of its series begins, the last is open (None).

    Stored rows are never edited, so this is computed whenever they are read. Series come one after the other, each in
    the order of time.
    """
    for _, found in groupby(sorted(rows, key=_by_series_and_time), key=series_key):
        series = list(found)
        for row, later in zip(series, [*series[1:], None], strict=True):
            yield {**row, "valid_to": later["valid_from"] if later else None}


def estimates(rows: Iterable[CostRow]) -> list[CostEstimate]:
    """Per series the medians of its last `PLANNED_FROM` rows, ordered by component, part and bucket."""
    found = []
    for _, group in groupby(sorted(rows, key=_by_series_and_time), key=series_key):
        series = list(group)[-PLANNED_FROM:]
        last = series[-1]
        found.append(
            CostEstimate(
                component=last["component"],
                part=last["component_part"],
                unit=last["unit"],
                bucket=last["input_bucket"],
                model_signature=last["model_signature"],
                producer_version=last["producer_version"],
                device_profile=last["device_profile"],
                rows=len(series),
                latency_ms_per_unit=statistics.median(row["latency_ms_per_unit"] for row in series),
                units=statistics.median(row["units"] for row in series),
                cpu_rss_peak_mb=_median_of_measured(series, "cpu_rss_peak_mb"),
                gpu_memory_per_task_mb=_median_of_measured(series, "gpu_memory_per_task_mb"),
                measured_until=last["valid_from"],
            )
        )
    return sorted(found, key=lambda item: (item.component, item.part != WHOLE, item.part, item.bucket))


def _by_series_and_time(row: CostRow) -> tuple[bytes, str]:
    return series_key(row), row["valid_from"]


def _median_of_measured(rows: list[CostRow], name: str) -> float | None:
    measured = [row[name] for row in rows if row[name] is not None]
    return statistics.median(measured) if measured else None
