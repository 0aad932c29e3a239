"""Metadata features of one row, against values worked out by hand."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.table.first_sight import first_sight
from trendflow.dataset.table.metadata_features import (
    AGE,
    METADATA_COLUMNS,
    age_bucket,
    metadata_features,
    metadata_provenance,
)
from trendflow_tests.dataset.table.sights import FIRST, PUBLISHED, T0, VIDEO


def test_every_column_by_hand() -> None:
    assert metadata_features(VIDEO, FIRST) == {
        "views_0": 2000.0,
        "likes_0": 100.0,
        "comments_0": 10.0,
        "channel_subscribers_0": 5.0,
        "channel_total_views_0": 7.0,
        "channel_total_videos_0": 9.0,
        "likes_per_view_0": 0.05,
        "comments_per_view_0": 0.005,
        "video_age_hours_at_snapshot1": 30.0,
        "publish_hour_utc": 22.0,
        "publish_weekday_utc": 5.0,
        "duration_seconds": 61.5,
        "title_len": 20.0,
        "title_word_count": 5.0,
        "title_has_question": 1.0,
        "title_upper_ratio": 3 / 15,
        "description_len": 3.0,
        "tag_count": 3.0,
        "made_for_kids": 0.0,
        "has_chapters": 1.0,
        "chapter_count": 4.0,
        "n_thumbnails": 5.0,
        "n_subtitle_langs": 0.0,
        "category_id": "22",
        "language": "en",
    }


def test_what_is_not_known_is_nan_and_not_zero() -> None:
    found = metadata_features({"publish_time": PUBLISHED}, {"t0": T0})
    known = {AGE: 30.0, "publish_hour_utc": 22.0, "publish_weekday_utc": 5.0, "category_id": None, "language": None}
    assert {name: found[name] for name in known} == known
    rest = [found[name] for name in METADATA_COLUMNS if name not in known]
    assert len(rest) == len(METADATA_COLUMNS) - 5
    assert all(isinstance(value, float) and math.isnan(value) for value in rest)


def test_an_empty_title_is_known() -> None:
    found = metadata_features({**VIDEO, "title": "", "description": "", "tags": []}, FIRST)
    assert [found[name] for name in ("title_len", "title_word_count", "description_len", "tag_count")] == [0.0] * 4
    assert math.isnan(found["title_upper_ratio"])


@pytest.mark.parametrize(
    ("views", "likes", "expected"), [(10_001.0, 0.0, math.nan), (10_000.0, 0.0, 0.0), (10_001.0, 1.0, 1.0)]
)
def test_likes_that_are_hidden_are_unknown(views: float, likes: float, expected: float) -> None:
    found = metadata_features(VIDEO, {**FIRST, "views": views, "likes": likes})
    assert found["likes_0"] == pytest.approx(expected, nan_ok=True)
    assert found["likes_per_view_0"] == pytest.approx(expected / views, nan_ok=True)


def test_rates_need_views() -> None:
    found = metadata_features(VIDEO, {**FIRST, "views": 0.0})
    assert math.isnan(found["likes_per_view_0"])
    assert math.isnan(found["comments_per_view_0"])


def test_the_decoded_duration_stands_in_for_a_page_without_one() -> None:
    assert metadata_features({**VIDEO, "duration_seconds": math.nan}, FIRST, 12.5)["duration_seconds"] == 12.5
    assert metadata_features(VIDEO, FIRST, 12.5)["duration_seconds"] == 61.5


@pytest.mark.parametrize("missing", ["publish_time", "t0"])
def test_a_date_is_never_invented(missing: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        metadata_features({**VIDEO, missing: None}, {**FIRST, missing: None})
    assert caught.value.error_code == "input_constraint_violated"


def test_a_snapshot_before_publication_is_refused() -> None:
    with pytest.raises(TrendFlowError, match="before publication"):
        metadata_features(VIDEO, {**FIRST, "t0": PUBLISHED - timedelta(seconds=1)})


@pytest.mark.parametrize(
    ("hours", "bucket"), [(0.0, "<24h"), (23.999, "<24h"), (24.0, "1-30d"), (720.0, "1-30d"), (720.001, ">30d")]
)
def test_age_buckets(hours: float, bucket: str) -> None:
    assert age_bucket(hours) == bucket


def test_every_column_has_provenance() -> None:
    assert sorted(found.column for found in metadata_provenance()) == sorted(METADATA_COLUMNS)


def test_a_page_that_was_captured_too_late_is_unknown() -> None:
    late = first_sight({**VIDEO, "captured_at": T0 + timedelta(minutes=61)}, FIRST, 60)
    assert late.document_late
    assert late.features["views_0"] == 2000.0
    assert late.features["category_id"] is None
    assert math.isnan(late.features["title_len"])
    assert not first_sight({**VIDEO, "captured_at": T0 + timedelta(minutes=60)}, FIRST, 60).document_late


def test_channel_counters_come_from_the_snapshot_or_a_look_up_in_time() -> None:
    names = ("channel_subscribers", "channel_views", "channel_videos")
    silent = {**FIRST, **dict.fromkeys(names, math.nan)}
    asked = {"channel_id": "b", **dict.fromkeys(names, 3.0), "observed_at": T0 + timedelta(minutes=60)}
    of_snapshot = first_sight(VIDEO, FIRST, 60, channel=asked)
    assert (of_snapshot.features["channel_subscribers_0"], of_snapshot.channel_from) == (5.0, "snapshot")
    of_lookup = first_sight(VIDEO, silent, 60, channel=asked)
    assert (of_lookup.features["channel_subscribers_0"], of_lookup.channel_from) == (3.0, "lookup")
    assert of_lookup.columns["channel_observed_at"] == asked["observed_at"]
    late = first_sight(VIDEO, silent, 60, channel={**asked, "observed_at": T0 + timedelta(minutes=61)})
    assert late.channel_from == ""
    assert late.columns["mask_channel_statistics"] is False
    assert late.columns["channel_observed_at"] is None
    assert math.isnan(late.features["channel_subscribers_0"])
