"""Whole runs of the collector over three weeks: what is stored, what is repeated, what stops it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.collector.channels import ChannelLookup
from trendflow.dataset.collector.collect import CollectReport, collect
from trendflow.dataset.collector.snapshot_store import SnapshotStore
from trendflow.dataset.collector.youtube import Item
from trendflow.dataset.snapshots.observations import Observations
from trendflow.dataset.snapshots.tables import SnapshotSet
from trendflow.dataset.targets import build_targets
from trendflow_tests.dataset.collector.conftest import Desk
from trendflow_tests.dataset.collector.youtube_server import channel, error, video

VIDEO, OTHER = "-abcdefghi_", "zyxwvutsrq1"


def run(desk: Desk, units: int = 1000) -> CollectReport:
    return collect(desk.snapshots, desk.client(units), clock=desk.clock)


def imported(desk: Desk) -> SnapshotSet:
    into = Observations()
    desk.snapshots.read_into(into)
    return into.finish()


def prepared(desk: Desk, *videos: dict[str, Any]) -> None:
    desk.server.videos = {item["id"]: item for item in videos}
    desk.server.channels = {"UC_synthetic_1": channel("UC_synthetic_1")}
    for name in desk.server.videos:
        desk.snapshots.track(name, desk.clock())


def stored(desk: Desk) -> dict[str, bytes]:
    return {info.key: desk.store.get(info.key) for info in desk.store.list() if "/quota/" not in info.key}


def test_three_weeks_give_every_target(desk: Desk) -> None:
    prepared(desk, video(VIDEO, 1000))
    assert run(desk).observed == 1
    for views in (2500, 4000, 9000):
        desk.clock.forward(days=7)
        desk.server.videos[VIDEO] = video(VIDEO, views, likeCount=str(views // 10))
        assert run(desk).observed == 1
    found = imported(desk)
    assert found.snapshots["views"].to_pylist() == [1000.0, 2500.0, 4000.0, 9000.0]
    assert found.snapshots["channel_subscribers"].to_pylist() == [900.0] * 4
    assert found.snapshots["source_row"].to_pylist() == [0, 7, 14, 21]
    (row,) = build_targets(found).table.to_pylist()
    assert [row[f"target_views_{days}d"] for days in (7, 14, 21)] == pytest.approx(
        [math.log1p(1500), math.log1p(3000), math.log1p(8000)]
    )
    assert all(row[f"mask_likes_{days}d"] for days in (7, 14, 21))
    assert desk.snapshots.unfinished((7, 14, 21)) == []


def test_metadata_is_that_of_the_first_snapshot(desk: Desk) -> None:
    prepared(desk, video(VIDEO))
    run(desk)
    changed = video(VIDEO)
    changed["snippet"]["title"] = "A later title"
    desk.server.videos[VIDEO] = changed
    desk.clock.forward(days=7)
    run(desk)
    (row,) = imported(desk).videos.to_pylist()
    assert row["title"] == "Title of a SYNTHETIC video"
    assert (row["tags"], row["duration_seconds"], row["caption"], row["made_for_kids"]) == (
        ["one", "two"], 90.0, True, False,
    )  # fmt: skip
    assert (row["category_id"], row["language"], row["n_thumbnails"]) == ("28", "en", 3.0)
    assert row["captured_at"] == desk.clock() - timedelta(days=7)


def test_a_second_run_asks_for_nothing_and_changes_nothing(desk: Desk) -> None:
    prepared(desk, video(VIDEO), video(OTHER))
    run(desk)
    before, asked = stored(desk), len(desk.server.requests)
    desk.server.videos[VIDEO] = video(VIDEO, 777_777)
    again = run(desk)
    assert (again.observed, again.deferred) == (0, 0)
    assert len(desk.server.requests) == asked
    assert stored(desk) == before


def test_of_two_collectors_at_once_the_first_stands(desk: Desk) -> None:
    prepared(desk, video(VIDEO, 1))
    client = desk.client()

    class Overtaken:
        """The API, in whose answering time another collector settles everything."""

        def videos(self, ids: Iterable[str]) -> dict[str, Item]:
            answer = client.videos(ids)
            run(desk)
            desk.clock.forward(minutes=1)
            return answer

        def channels(self, ids: Iterable[str]) -> dict[str, Item]:
            return client.channels(ids)

    report = collect(desk.snapshots, Overtaken(), clock=desk.clock)
    assert report.observed == 0
    assert imported(desk).snapshots["snapshot_time"].to_pylist() == [desk.clock() - timedelta(minutes=1)]


def test_hidden_and_disabled_counters_are_missing_not_zero(desk: Desk) -> None:
    prepared(desk, video(VIDEO, likeCount=None, commentCount=None, channel="UC_hidden"), video(OTHER, viewCount=None))
    desk.server.channels["UC_hidden"] = channel("UC_hidden", hidden=True)
    report = run(desk)
    assert report.hidden == {"channel_subscribers": 1, "comments": 1, "likes": 1}
    hidden, other = imported(desk).snapshots.to_pylist()
    assert all(math.isnan(hidden[name]) for name in ("likes", "comments", "channel_subscribers"))
    assert (hidden["views"], hidden["channel_views"], hidden["channel_videos"]) == (1000.0, 123456.0, 42.0)
    assert math.isnan(other["views"])


def test_a_video_that_is_gone_at_first_is_not_asked_for_again(desk: Desk) -> None:
    prepared(desk, video(VIDEO))
    desk.snapshots.track(OTHER, desk.clock())
    assert (run(desk).observed, run(desk).unavailable) == (1, 0)
    desk.clock.forward(days=7)
    run(desk)
    assert desk.server.requests[-2].query["id"] == VIDEO
    assert imported(desk).videos["video_id"].to_pylist() == [VIDEO]


def test_a_video_that_goes_private_and_returns(desk: Desk) -> None:
    prepared(desk, video(VIDEO))
    run(desk)
    gone = desk.server.videos.pop(VIDEO)
    desk.clock.forward(days=7)
    assert run(desk).unavailable == 1
    desk.server.videos[VIDEO] = gone
    desk.clock.forward(days=7)
    assert run(desk).observed == 1
    row = build_targets(imported(desk)).table.to_pylist()[0]
    assert (row["mask_reason_views_7d"], row["mask_views_14d"]) == ("no_snapshot", True)


def test_a_missed_time_is_written_down_once(desk: Desk) -> None:
    prepared(desk, video(VIDEO))
    run(desk)
    desk.clock.forward(days=8, hours=1)
    assert run(desk).missed == 1
    assert run(desk).missed == 0
    key = f"snapshots/snapshots_v1/youtube/{VIDEO}/007.json"
    assert json.loads(desk.store.get(key))["outcome"] == "missed"


def test_the_end_of_the_quota_defers_the_rest_to_the_next_day(desk: Desk) -> None:
    names = [f"-video-{at:04d}" for at in range(120)]
    prepared(desk, *(video(name) for name in names))
    first = run(desk, units=3)  # one batch costs two units the first time, then one
    assert (first.observed, first.deferred) == (100, 20)
    assert first.stopped is not None
    assert first.stopped.error_code == "rate_limited"
    desk.clock.forward(hours=20)
    second = run(desk, units=3)
    assert (second.observed, second.deferred, second.stopped) == (20, 0, None)
    assert imported(desk).videos.num_rows == 120


def test_what_was_taken_before_a_failure_is_kept(desk: Desk) -> None:
    names = [f"-video-{at:04d}" for at in range(60)]
    prepared(desk, *(video(name) for name in names))
    client = desk.client()

    class Failing:
        def videos(self, ids: Iterable[str]) -> dict[str, Item]:
            if desk.server.requests:
                desk.server.failures = [error(500, "backendError")] * 4
            return client.videos(ids)

        def channels(self, ids: Iterable[str]) -> dict[str, Item]:
            return client.channels(ids)

    with pytest.raises(TrendFlowError) as caught:
        collect(desk.snapshots, Failing(), clock=desk.clock)
    assert caught.value.error_code == "network_error"
    assert imported(desk).snapshots.num_rows == 50
    assert run(desk).observed == 10


def test_texts_lie_with_the_metadata_alone(desk: Desk) -> None:
    canary = "canary-7f3a"
    item = video(VIDEO)
    item["snippet"] |= {"title": canary, "description": canary, "tags": [canary]}
    prepared(desk, item)
    run(desk)
    desk.clock.forward(days=7)
    run(desk)
    holding = [key for key, data in stored(desk).items() if canary.encode() in data]
    assert holding == [f"snapshots/videos_v1/youtube/{VIDEO}.json"]


def test_a_forgotten_video_leaves_nothing(desk: Desk) -> None:
    prepared(desk, video(VIDEO), video(OTHER))
    run(desk)
    ChannelLookup(desk.client(), desk.store).channel_ids([VIDEO])
    assert desk.snapshots.forget(VIDEO) == 4
    assert all(VIDEO.encode() not in data and VIDEO not in key for key, data in stored(desk).items())
    assert imported(desk).videos["video_id"].to_pylist() == [OTHER]
    assert desk.snapshots.forget(VIDEO) == 0


def test_a_deleted_video_is_neither_followed_nor_imported(desk: Desk) -> None:
    prepared(desk, video(VIDEO), video(OTHER))
    run(desk)
    desk.clock.forward(days=7)
    asked = len(desk.server.requests)
    guarded = SnapshotStore(desk.store, {("youtube", VIDEO)})
    assert collect(guarded, desk.client(), clock=desk.clock).observed == 1
    assert [request.query["id"] for request in desk.server.requests[asked:]] == [OTHER, "UC_synthetic_1"]
    into = Observations()
    guarded.read_into(into)
    assert into.finish().videos["video_id"].to_pylist() == [OTHER]
    with pytest.raises(TrendFlowError) as caught:
        guarded.track(VIDEO, desk.clock())
    assert caught.value.error_code == "input_constraint_violated"
    assert VIDEO not in caught.value.message


def test_new_videos_do_not_change_the_rows_of_others(desk: Desk) -> None:
    prepared(desk, video(OTHER))
    run(desk)
    before = imported(desk).snapshots.to_pylist()
    prepared(desk, video(OTHER), video(VIDEO))
    run(desk)
    assert [row for row in imported(desk).snapshots.to_pylist() if row["video_id"] == OTHER] == before


def test_a_bad_id_is_not_registered(desk: Desk) -> None:
    with pytest.raises(TrendFlowError) as caught:
        desk.snapshots.track("../../etc", desk.clock())
    assert caught.value.error_code == "input_constraint_violated"
    assert desk.snapshots.track(VIDEO, desk.clock())
    assert not desk.snapshots.track(VIDEO, desk.clock())


def test_a_damaged_object_is_named(desk: Desk) -> None:
    prepared(desk, video(VIDEO))
    run(desk)
    desk.store.put(f"snapshots/snapshots_v1/youtube/{VIDEO}/000.json", b"{}")
    with pytest.raises(TrendFlowError, match=r"000\.json") as caught:
        imported(desk)
    assert caught.value.error_code == "artifact_validation_failed"
