"""Numbers and times as text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trendflow.contracts.vocab import ARTIFACT_STATUSES, EMPTY_REASONS, WARNINGS
from trendflow.presentation import texts
from trendflow.presentation.formatting import (
    MISSING,
    byte_size,
    clock,
    difference,
    elapsed,
    fixed,
    number,
    percent,
    seconds_between,
)


@pytest.mark.parametrize(
    ("seconds", "decimals", "text"),
    [
        (0, 0, "0:00"),
        (59.96, 1, "1:00.0"),
        (59.4, 0, "0:59"),
        (71.96, 2, "1:11.96"),
        (1200, 0, "20:00"),
        (-0.01, 1, "0:00.0"),
        (-1.5, 1, "−0:01.5"),
        (math.nan, 1, MISSING),
    ],
)
def test_clock(seconds: float, decimals: int, text: str) -> None:
    assert clock(seconds, decimals) == text


@given(st.floats(0, 1e6), st.integers(0, 3))
def test_clock_reads_back_as_the_rounded_time(seconds: float, decimals: int) -> None:
    minutes, rest = clock(seconds, decimals).split(":")
    assert float(rest) < 60
    assert 60 * int(minutes) + float(rest) == pytest.approx(seconds, abs=0.51 * 10**-decimals)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-23.04, "−23"),
        (0.0123456, "0.0123"),
        (1234567.0, "1.23e+06"),
        (45678.0, "45\u202f678"),
        (math.inf, MISSING),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.251, "+0.25"), (-0.251, "−0.25"), (0.001, "0.00"), (math.nan, MISSING)])
def test_a_difference_shows_its_sign(value: float, text: str) -> None:
    assert difference(value) == text


def test_missing_values_are_never_zero() -> None:
    assert {fixed(math.nan, 1, "LUFS"), percent(math.nan), number(math.nan), elapsed(None), byte_size(None)} == {
        MISSING
    }


def test_small_shares_are_not_zero() -> None:
    assert percent(0.001) == "<1\u202f%"
    assert percent(0.0) == "0\u202f%"


@pytest.mark.parametrize(
    ("count", "text"),
    [(999, "999\u202fB"), (48_213, "48.2\u202fkB"), (5_481_200, "5.48\u202fMB"), (2 * 10**9, "2\u202fGB")],
)
def test_byte_size(count: int, text: str) -> None:
    assert byte_size(count) == text


def test_seconds_between() -> None:
    assert seconds_between("2026-03-01T10:00:00.000Z", "2026-03-01T10:00:42.500Z") == 42.5
    assert math.isnan(seconds_between("2026-03-01T10:00:00.000Z", None))


def test_every_word_of_the_vocabularies_has_a_sentence() -> None:
    assert set(texts.EMPTY_REASON_TEXTS) == EMPTY_REASONS
    assert set(texts.WARNING_TEXTS) == WARNINGS
    assert set(texts.STATUS_TEXTS) >= ARTIFACT_STATUSES
