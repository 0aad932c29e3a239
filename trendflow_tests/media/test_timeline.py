from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.timeline import build_timeline

BASE = Fraction(1, 1000)


def ticks_of(raw: list[int | None], allowed: float = 0.05) -> np.ndarray:
    return build_timeline(raw, BASE, None, allowed).ticks


def regular(count: int) -> list[int | None]:
    return [40 * k for k in range(count)]


@pytest.mark.parametrize("wrong", [None, 40 * 49, 0, 10**9], ids=["missing", "equal", "falling", "jump"])
def test_one_bad_timestamp_is_interpolated_and_nothing_else_moves(wrong: int | None) -> None:
    raw = regular(100)
    raw[50] = wrong
    found = build_timeline(raw, BASE, 40, 0.05)
    assert found.repaired == 1
    assert found.ticks.tolist() == regular(100)


def test_bad_ends_continue_at_the_median_interval() -> None:
    raw = regular(100)
    raw[0] = raw[1] = raw[99] = None
    assert ticks_of(raw).tolist() == regular(100)


def test_too_many_bad_timestamps_are_refused() -> None:
    raw = regular(100)
    for k in range(10, 70, 10):
        raw[k] = None
    with pytest.raises(TrendFlowError, match="video_file_corrupted"):
        ticks_of(raw)
    assert ticks_of(raw, allowed=0.06).tolist() == regular(100)


@pytest.mark.parametrize("raw", [[], [None], [None, 5, 5]])
def test_timelines_without_anything_good_are_refused(raw: list[int | None]) -> None:
    with pytest.raises(TrendFlowError, match="video_file_corrupted"):
        ticks_of(raw, allowed=0.5)


@given(st.lists(st.one_of(st.none(), st.integers(-1000, 1000)), min_size=2, max_size=60))
def test_repaired_times_always_strictly_increase(raw: list[int | None]) -> None:
    try:
        found = build_timeline(raw, BASE, None, 1.0)
    except TrendFlowError:
        known = [tick for tick in raw if tick is not None]
        assert not any(a < b for a, b in combinations(known, 2))  # refused only without two usable neighbours
        return
    assert len(found.ticks) == len(raw)
    assert np.all(np.diff(found.ticks) > 0)
    assert found.times[0] == 0.0


def test_the_axis_starts_at_the_first_frame() -> None:
    found = build_timeline([8333, 8366, 8400], BASE, 33, 0.05)
    assert found.start_sec == pytest.approx(8.333)
    assert found.times.tolist() == pytest.approx([0.0, 0.033, 0.067])
    assert found.duration_sec == pytest.approx(0.1)


@pytest.mark.parametrize("unknown", [None, 0])
def test_an_unknown_last_duration_is_the_median_interval(unknown: int | None) -> None:
    found = build_timeline([0, 40, 80, 200], BASE, unknown, 0.05)
    assert found.duration_sec == pytest.approx(0.24)
    assert found.frame_rate == pytest.approx(4 / 0.24)


def test_a_constant_rate_is_exact() -> None:
    found = build_timeline([1001 * k for k in range(390)], Fraction(1, 30000), 1001, 0.05)
    assert found.frame_rate == pytest.approx(30000 / 1001, rel=1e-15)
    assert found.duration_sec == pytest.approx(390 * 1001 / 30000, rel=1e-15)


@pytest.mark.parametrize(("odd", "expected"), [(0, False), (1, False), (2, True), (30, True)])
def test_variable_rate_needs_more_than_one_percent_of_odd_intervals(odd: int, expected: bool) -> None:
    intervals = [40] * (100 - odd) + [60] * odd
    ticks = np.concatenate([[0], np.cumsum(intervals)]).tolist()
    assert build_timeline(ticks, BASE, 40, 0.05).is_vfr is expected


def test_rounded_time_stamps_are_not_variable_rate() -> None:
    ticks = [round(k * 1000 / 30) for k in range(200)]  # 33 and 34 ms, as Matroska stores 30 fps
    assert not build_timeline(ticks, BASE, 33, 0.05).is_vfr
