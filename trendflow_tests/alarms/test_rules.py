"""When alarms are raised, on runs and cost rows written out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trendflow.alarms.ended_runs import EndedRun
from trendflow.alarms.rules import FAILURES, Alarm, AlarmLimits, run_alarms, slow_components, success_rate
from trendflow.contracts.errors import ERROR_RULES
from trendflow.contracts.vocab import EMPTY_REASONS

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
LIMITS = AlarmLimits()
LONG_AGO = NOW - timedelta(hours=5)


def runs(count: int, status: str = "success", at: datetime = LONG_AGO, **facts: Any) -> list[EndedRun]:
    return [EndedRun(at, status, **facts) for _ in range(count)]


def failed(count: int, code: str, at: datetime = LONG_AGO) -> list[EndedRun]:
    return runs(count, "error", at, error_codes=frozenset({code}))


def found(ended: list[EndedRun]) -> list[tuple[str, str, float]]:
    return [(alarm.rule, alarm.subject, alarm.value) for alarm in run_alarms(ended, NOW, LIMITS)]


def test_numbers_are_those_of_the_specification() -> None:
    assert (LIMITS.window, LIMITS.systematic_share, LIMITS.out_of_memory_share) == (200, 0.05, 0.10)
    assert (LIMITS.success_rate, LIMITS.recent, LIMITS.slowdown) == (0.80, timedelta(hours=1), 2.0)
    assert FAILURES < EMPTY_REASONS


@pytest.mark.parametrize(("count", "alarms"), [(10, []), (11, [("error_code", "timeout", 0.055)])])
def test_one_code_in_more_than_a_twentieth_is_systematic(count: int, alarms: list[Any]) -> None:
    assert found(failed(count, "timeout") + runs(200 - count)) == alarms


def test_different_codes_do_not_add_up() -> None:
    assert found(failed(10, "timeout") + failed(10, "video_unreadable") + runs(180)) == []


def test_few_runs_are_no_system() -> None:
    assert found(failed(19, "timeout")) == []
    assert found(failed(2, "timeout") + runs(18)) == [("error_code", "timeout", 0.1)]


def test_an_optional_component_that_fails_everywhere_is_noticed_in_successful_runs() -> None:
    ended = runs(20, error_codes=frozenset({"model_load_failed"}))
    assert found(ended) == [("error_code", "model_load_failed", 1.0)]


def test_reasons_that_describe_videos_warn_and_those_of_failed_work_are_errors() -> None:
    ended = runs(20, empty_reasons=frozenset({"no_faces_in_video", "all_extractors_empty"}))
    alarms = list(run_alarms(ended, NOW, LIMITS))
    assert [(alarm.subject, alarm.severity) for alarm in alarms] == [
        ("all_extractors_empty", "error"),
        ("no_faces_in_video", "warning"),
    ]


@pytest.mark.parametrize(("count", "alarms"), [(20, []), (21, [("out_of_memory", "", 0.105)])])
def test_memory_that_runs_out_in_more_than_a_tenth(count: int, alarms: list[Any]) -> None:
    assert found(runs(count, out_of_memory=True) + runs(200 - count)) == alarms


def test_the_success_rate_is_that_of_an_hour_and_names_its_main_cause() -> None:
    late = NOW - timedelta(minutes=59)
    ended = failed(2, "timeout", late) + failed(1, "internal_error", late) + runs(9, at=late)
    (alarm,) = run_alarms(ended, NOW, LIMITS)
    assert alarm == Alarm("success_rate", "", 0.75, 0.8, 12, error_code="timeout")
    assert found(ended + runs(3, at=late)) == [], "12 of 15 are the limit itself"
    assert found(failed(4, "timeout", late)) == [], "too few to judge"
    assert found(failed(12, "timeout", NOW - timedelta(minutes=61))) == []


def test_what_was_cancelled_did_not_fail() -> None:
    assert success_rate(["success", "cancelled", "cancelled"]) == 1.0
    assert success_rate(["success", "error", "cancelled"]) == 0.5
    assert success_rate([]) == 1.0


def cost(component: str, milliseconds: float, ago: timedelta, **changes: Any) -> dict[str, Any]:
    return {
        "component": component,
        "component_part": "whole",
        "input_bucket": "320x240",
        "model_signature": "none",
        "producer_version": "1.0.0",
        "device_profile": {"cpu": "test"},
        "latency_ms_per_unit": milliseconds,
        "valid_from": (NOW - ago).isoformat(),
        **changes,
    }


def costs(component: str, before: float, after: float, *, recent: int = 5, **changes: Any) -> list[dict[str, Any]]:
    old = [cost(component, before, timedelta(hours=2, minutes=number)) for number in range(20)]
    return old + [cost(component, after, timedelta(minutes=number), **changes) for number in range(recent)]


def slow(rows: list[dict[str, Any]]) -> list[tuple[str, float, int]]:
    return [(alarm.subject, alarm.value, alarm.runs) for alarm in slow_components(rows, NOW, LIMITS)]


def test_a_component_above_twice_its_baseline_is_slow() -> None:
    rows = costs("core_clip", 10.0, 25.0) + costs("uniqueness", 10.0, 19.0)
    assert slow(rows) == [("core_clip", 2.5, 5)]


def test_what_cannot_be_compared_is_not_slow() -> None:
    assert slow(costs("core_clip", 10.0, 99.0, recent=4)) == []
    assert slow(costs("core_clip", 10.0, 99.0, producer_version="2.0.0")) == [], "other code has no baseline yet"
    assert slow(costs("core_clip", 10.0, 99.0, component_part="substep:decode")) == []
    assert slow([row for row in costs("core_clip", 10.0, 99.0) if row["latency_ms_per_unit"] > 10]) == []


def test_every_code_can_be_the_subject_of_an_alarm() -> None:
    for code in ERROR_RULES:
        assert [subject for _, subject, _ in found(failed(20, code))] == [code]
