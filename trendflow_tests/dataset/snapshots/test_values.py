"""Single values: what counts as a number, a time, a text, for any input."""

from __future__ import annotations

import json
import math
import string
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from html import escape
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.dataset.snapshots.report import ImportReport
from trendflow.dataset.snapshots.values import Values, iso_duration, number, time_get, utc_time

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


@given(st.integers(0, 2**53))
def test_a_counter_is_the_same_as_text_and_as_a_number(value: int) -> None:
    assert number(str(value)) == number(value) == number(f" {value} ") == float(value)


@given(st.text(alphabet="0123456789+-.eE_, infnax٣", max_size=8))
def test_a_text_is_a_number_only_if_python_reads_the_same_finite_one(text: str) -> None:
    found = number(text)
    if found is not None:
        assert found == float(text)
        assert math.isfinite(found)
        assert math.copysign(1, found) == 1


@settings(max_examples=50)
@given(JSON)
def test_no_value_breaks_a_reader_or_passes_for_what_it_is_not(value: Any) -> None:
    values = Values(ImportReport())
    counter = values.counter(value, "views")
    assert math.isnan(counter) or (counter >= 0 and math.isfinite(counter))
    assert values.text(value, "title") is None or isinstance(value, str)
    assert values.tags(value) is None or isinstance(value, (str, list))
    assert values.flag(value, "caption") in (None, True, False)
    category = values.category(value)
    assert category is None or (category.isascii() and category.isdigit())
    assert values.channel_id(value, "video") != "video"
    assert utc_time(value) is None or isinstance(value, str)
    assert time_get(value) is None or isinstance(value, str)


@given(JSON)
def test_every_value_that_is_lost_is_counted(value: Any) -> None:
    report = ImportReport()
    lost = math.isnan(Values(report).counter(value, "views"))
    assert sum(report.counts.values()) == lost


@given(st.datetimes(min_value=datetime(1000, 1, 1)))
def test_times_of_shards_are_minutes_in_utc(moment: datetime) -> None:
    assert time_get(moment.strftime("%Y_%m_%d_%H_%M").zfill(16)) == moment.replace(second=0, microsecond=0, tzinfo=UTC)


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2200, 1, 1)), st.integers(-12, 14))
def test_iso_times_of_any_zone_are_the_same_instant(moment: datetime, hours: int) -> None:
    zoned = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    found = utc_time(zoned.isoformat())
    assert found == zoned
    assert found is not None
    assert found.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "text", ["2026-01-09", "20260109T120000", "2026-01-09X12:00", "2026-02-30T12:00:00", "1767960000"]
)
def test_a_date_without_a_readable_time_of_day_is_no_time(text: str) -> None:
    assert utc_time(text) is None


@given(st.integers(0, 9), st.integers(0, 99), st.integers(0, 99), st.integers(0, 999))
def test_durations(days: int, hours: int, minutes: int, seconds: int) -> None:
    text = f"P{days}DT{hours}H{minutes}M{seconds}S"
    expected = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
    assert iso_duration(text) == expected


@pytest.mark.parametrize("text", ["", "P", "PT", "45", "PT1.5H", "P1Y", "P1M", "-PT5S", "PT5S ", "pt5s", None, 45])
def test_what_is_no_duration(text: Any) -> None:
    assert iso_duration(text) is None


def test_the_duration_of_a_live_stream_that_has_not_ended_is_unknown() -> None:
    assert math.isnan(Values(ImportReport()).duration(None, "P0D"))
    assert math.isnan(Values(ImportReport()).duration(0, None))


@given(st.text())
def test_texts_are_nfc_and_stay_what_they_are(text: str) -> None:
    report = ImportReport()
    found = Values(report).text(text, "title")
    assert found is not None
    assert unicodedata.is_normalized("NFC", found)
    if "&" not in text:
        whole = text.encode("utf-8", "replace").decode()
        assert found == unicodedata.normalize("NFC", whole)
        assert report.counts["text_decoded"] == (found != text)


@given(st.text(alphabet=string.ascii_letters + " <>&\"'äß€", max_size=30))
def test_escaped_texts_come_back_as_they_were_written(text: str) -> None:
    assert Values(ImportReport()).text(escape(text), "title") == text


@given(st.lists(st.text(alphabet=string.ascii_letters, min_size=1), min_size=1, max_size=4))
def test_tags_of_a_csv_are_split(tags: list[str]) -> None:
    values = Values(ImportReport())
    assert values.tags("|".join(tags)) == values.tags(json.dumps(tags)) == values.tags(tags) == tuple(tags)
