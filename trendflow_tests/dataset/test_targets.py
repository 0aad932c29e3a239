"""Targets against a plain reference, at every boundary, and on the real snapshots."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.parquet import parquet_bytes
from trendflow.dataset.snapshots.importer import import_snapshots
from trendflow.dataset.snapshots.observations import Observations, metadata_tuple
from trendflow.dataset.snapshots.tables import SnapshotSet
from trendflow.dataset.targets import HEADS, TargetPolicy, build_targets, likes_hidden, target_columns

T0 = datetime(2026, 1, 10, 12, 0, 7, tzinfo=UTC)
VIDEO = "abcdefghij0"
HOUR = timedelta(hours=1)

Row = tuple[timedelta, float, float]
"""Time since t0, views, likes."""


def snapshots(rows: Iterable[Row], video: str = VIDEO, into: Observations | None = None) -> SnapshotSet:
    into = into or Observations()
    metadata = metadata_tuple({"publish_time": T0 - timedelta(days=1)})
    for at, (since, views, likes) in enumerate(rows):
        into.add(video, T0 + since, [views, likes, *[math.nan] * 4], metadata, "SYNTHETIC", at)
    return into.finish()


def one(rows: Iterable[Row], **policy: Any) -> dict[str, Any]:
    (row,) = build_targets(snapshots(rows), TargetPolicy(**policy)).table.to_pylist()
    return dict(row)


def reference(rows: list[Row], target: str, days: int, policy: str = "mask") -> tuple[float, str | None, float]:
    """y, reason and observed hours of one head, written from the definition."""
    rows = sorted(rows)
    index = 1 if target == "views" else 2
    first, t0 = rows[0], rows[0][0]
    near = [row for row in rows if abs(row[0] - t0 - timedelta(days=days)) <= timedelta(hours=24)]
    if not near:
        return math.nan, "no_snapshot", math.nan
    best = min(abs(row[0] - t0 - timedelta(days=days)) for row in near)
    chosen = next(row for row in near if abs(row[0] - t0 - timedelta(days=days)) == best)
    hours = (chosen[0] - t0) / HOUR
    before, after = first[index], chosen[index]
    if math.isnan(before) or math.isnan(after):
        return math.nan, "bad_counter", hours
    if target == "likes" and any(row[2] == 0 and row[1] > 10_000 for row in (first, chosen)):
        return math.nan, "hidden_likes", hours
    if after < before * (1 - 0.001) and policy == "mask":
        return math.nan, "decreased", hours
    return math.log1p(max(after - before, 0)), None, hours


def check(row: dict[str, Any], rows: list[Row], policy: str = "mask") -> None:
    for target in ("views", "likes"):
        for days in (7, 14, 21):
            head = f"{target}_{days}d"
            y, reason, hours = reference(rows, target, days, policy)
            assert row[f"mask_reason_{head}"] == reason
            assert row[f"mask_{head}"] is (reason is None)
            assert row[f"target_{head}"] == pytest.approx(y, rel=1e-6, nan_ok=True)
            assert row[f"observed_hours_{head}"] == pytest.approx(hours, rel=1e-12, nan_ok=True)


START: Row = (timedelta(0), 1000.0, 100.0)
WEEK = timedelta(days=7)


def test_the_columns_are_those_of_the_specification() -> None:
    assert HEADS == ("views_7d", "views_14d", "views_21d", "likes_7d", "likes_14d", "likes_21d")
    table = build_targets(snapshots([START])).table
    assert table.column_names == target_columns()
    assert {"x0_views", "x0_likes", "t0", "target_views_7d", "mask_likes_21d"} <= set(table.column_names)
    assert {str(table.schema.field(f"target_{head}").type) for head in HEADS} == {"float"}


def test_the_rise_is_what_a_forecast_is_read_back_from() -> None:
    row = one([START, (WEEK, 4000.0, 100.0)])
    assert row["x0_views"] + np.expm1(row["target_views_7d"]) == pytest.approx(4000.0, rel=1e-5)
    assert row["target_likes_7d"] == 0.0


@pytest.mark.parametrize(
    ("since", "seen"),
    [
        (WEEK - 24 * HOUR, True),
        (WEEK - 24 * HOUR - timedelta(microseconds=1), False),
        (WEEK + 24 * HOUR, True),
        (WEEK + 24 * HOUR + timedelta(microseconds=1), False),
    ],
)
def test_both_ends_of_the_tolerance_belong_to_it(since: timedelta, seen: bool) -> None:
    row = one([START, (since, 2000.0, 200.0)])
    assert row["mask_views_7d"] is seen
    assert row["mask_reason_views_7d"] == (None if seen else "no_snapshot")
    assert math.isnan(row["observed_hours_views_7d"]) is not seen


def test_the_nearest_snapshot_answers_and_of_two_equally_near_the_earlier() -> None:
    near = one([START, (WEEK - 3 * HOUR, 2000.0, 0.0), (WEEK + 2 * HOUR, 3000.0, 0.0), (WEEK + 5 * HOUR, 4000.0, 0.0)])
    assert near["observed_hours_views_7d"] == 170.0
    tie = one([START, (WEEK - 2 * HOUR, 2000.0, 0.0), (WEEK + 2 * HOUR, 3000.0, 0.0)])
    assert tie["observed_hours_views_7d"] == 166.0


def test_the_nearest_snapshot_answers_even_when_its_counter_is_bad() -> None:
    row = one([START, (WEEK - 3 * HOUR, 2000.0, 200.0), (WEEK, math.nan, 300.0)])
    assert (row["mask_reason_views_7d"], row["mask_reason_likes_7d"]) == ("bad_counter", None)


@pytest.mark.parametrize(
    ("x0", "x_h", "reason", "y"),
    [
        (1000.0, 998.9, "decreased", math.nan),
        (1000.0, 999.0, None, 0.0),
        (1000.0, 1000.0, None, 0.0),
        (1000.0, 1001.0, None, math.log(2)),
        (1000.0, 0.0, "decreased", math.nan),
        (0.0, 0.0, None, 0.0),
        (math.nan, 5.0, "bad_counter", math.nan),
        (5.0, math.nan, "bad_counter", math.nan),
    ],
)
def test_falls_and_bad_counters(x0: float, x_h: float, reason: str | None, y: float) -> None:
    row = one([(timedelta(0), x0, 1.0), (WEEK, x_h, 1.0)])
    assert row["mask_reason_views_7d"] == reason
    assert row["target_views_7d"] == pytest.approx(y, nan_ok=True)


def test_a_fall_may_be_floored_instead() -> None:
    row = one([START, (WEEK, 500.0, 50.0)], decrease_policy="floor")
    assert (row["mask_views_7d"], row["target_views_7d"], row["mask_reason_views_7d"]) == (True, 0.0, None)


@pytest.mark.parametrize("policy", ["mask", "floor"])
@pytest.mark.parametrize(
    ("before", "after", "hidden"),
    [
        ((10_001.0, 0.0), (20_000.0, 50.0), True),
        ((5_000.0, 10.0), (10_001.0, 0.0), True),
        ((10_000.0, 0.0), (10_000.0, 0.0), False),
        ((math.nan, 0.0), (9_000.0, 5.0), False),
    ],
)
def test_likes_of_zero_beside_many_views_are_hidden(
    policy: str, before: tuple[float, float], after: tuple[float, float], hidden: bool
) -> None:
    row = one([(timedelta(0), *before), (WEEK, *after)], decrease_policy=policy)
    assert row["mask_reason_likes_7d"] == ("hidden_likes" if hidden else None)


def test_hidden_likes_at_the_first_snapshot_are_unknown_and_later_ones_do_not_reach_back() -> None:
    at_first = one([(timedelta(0), 20_000.0, 0.0)])
    assert math.isnan(at_first["x0_likes"])
    later = one([(timedelta(0), 20_000.0, 7.0), (WEEK, 30_000.0, 0.0)])
    assert later["x0_likes"] == 7.0
    assert likes_hidden(np.array([10_000.0, 10_001.0, 10_001.0]), np.array([0.0, 0.0, 1.0])).tolist() == [0, 1, 0]


def test_follow_up_snapshots_change_nothing_about_the_first() -> None:
    rows = [START, (WEEK, 2000.0, 0.0), (2 * WEEK, 99_000.0, 0.0)]
    columns = ["video_id", "t0", "x0_views", "x0_likes"]
    assert {name: one(rows)[name] for name in columns} == {name: one(rows[:1])[name] for name in columns}


ROWS = st.lists(
    st.tuples(
        st.integers(0, 24 * 24).map(lambda hours: hours * HOUR),
        st.sampled_from([0.0, 9_990.0, 10_000.0, 10_500.0, 20_000.0, math.nan]),
        st.sampled_from([0.0, 1.0, 50.0, 1_000.0, math.nan]),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda row: row[0],
)


@settings(max_examples=60)
@given(st.lists(ROWS, min_size=1, max_size=4), st.sampled_from(["mask", "floor"]))
def test_any_snapshots_give_what_the_definition_says(videos: list[list[Row]], policy: str) -> None:
    into = Observations()
    for at, rows in enumerate(videos[1:], 1):
        for since, views, likes in rows:
            into.add(f"abcdefghij{at}", T0 + since, [views, likes, *[0.0] * 4], metadata_tuple({}), "S", 0)
    found = build_targets(snapshots(videos[0], into=into), TargetPolicy(decrease_policy=policy))
    for row, rows in zip(found.table.to_pylist(), videos, strict=True):
        check(row, rows, policy)
    for head, counts in found.report["heads"].items():
        column = found.table[f"mask_reason_{head}"].to_pylist()
        assert {**counts["reasons"], None: counts["n"]} == {
            **dict.fromkeys(counts["reasons"], 0),
            None: 0,
            **Counter(column),
        }


def test_every_fall_is_logged_with_its_size() -> None:
    rows = [START, (WEEK, 999.5, 100.0), (2 * WEEK, 400.0, 100.0), (3 * WEEK, 20_000.0, 0.0)]
    report = build_targets(snapshots(rows)).report
    falls = [(fall["head"], fall["fall"], fall["treatment"]) for fall in report["falls"]]
    assert falls == [
        ("likes_21d", 100.0, "masked:hidden_likes"),
        ("views_14d", 600.0, "masked:decreased"),
        ("views_7d", 0.5, "floored"),
    ]
    assert report["heads"]["views_14d"]["decreased_share"] == 1.0
    assert report["heads"]["views_7d"]["decreased_share"] == 0.0
    json.dumps(report, allow_nan=False)


def test_offsets_are_those_from_the_horizon() -> None:
    report = build_targets(snapshots([START, (WEEK - 6 * HOUR, 2000.0, 100.0)])).report
    assert report["offsets_hours"]["7d"]["p50"] == -6.0
    assert report["offsets_hours"]["7d"]["mean_absolute"] == 6.0
    assert report["offsets_hours"]["14d"] == {
        "n": 0, "min": None, "p05": None, "p25": None, "p50": None, "p75": None, "p95": None, "max": None,
        "mean_absolute": None,
    }  # fmt: skip


def test_no_snapshots_give_an_empty_table() -> None:
    found = build_targets(Observations().finish())
    assert found.table.num_rows == 0
    assert found.table.column_names == target_columns()
    assert found.report["heads"]["views_7d"]["coverage"] is None


@pytest.mark.parametrize(
    "policy",
    [
        {"horizons_days": ()},
        {"horizons_days": (7, 7)},
        {"horizons_days": (14, 7)},
        {"horizons_days": (1,), "horizon_tolerance_hours": 12.0},
        {"decrease_policy": "ignore"},
        {"decrease_tolerance": 1.0},
        {"horizon_tolerance_hours": -1.0},
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(TrendFlowError) as caught:
        TargetPolicy(**policy)
    assert caught.value.error_code == "config_invalid"


def test_the_real_snapshots(data_dir: Path) -> None:
    path = data_dir / "snapshots" / "snapshots.parquet"
    imported = import_snapshots([path])
    found = build_targets(imported)
    shuffled = imported.snapshots.take(pa.array(np.random.default_rng(0).permutation(imported.snapshots.num_rows)))
    again = build_targets(replace(imported, snapshots=shuffled))
    assert parquet_bytes(found.table) == parquet_bytes(again.table)
    assert found.report == again.report
    known = pd.read_parquet(path)
    groups = dict(iter(known.groupby("video_id")))
    table = found.table.to_pylist()
    assert len(table) == len(groups) == 1357
    for row in table:
        group = groups[row["video_id"]]
        t0 = group["snapshot_time"].min()
        assert row["t0"] == t0
        rows = zip(group["snapshot_time"] - t0, group["views"], group["likes"], strict=True)
        check(row, [(since.to_pytimedelta(), float(views), float(likes)) for since, views, likes in rows])
    seen = [1357 - found.report["heads"][f"views_{days}d"]["reasons"]["no_snapshot"] for days in (7, 14, 21)]
    assert seen == [331, 314, 301]


def test_a_policy_survives_a_turn_as_json() -> None:
    policy = TargetPolicy(horizon_tolerance_hours=12.0, decrease_policy="floor")
    document = json.loads(json.dumps(policy.as_dict()))
    assert TargetPolicy.from_mapping(document) == policy
    assert document["hidden_likes_min_views"] == 10_000.0
