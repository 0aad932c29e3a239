"""Looking up channels: in batches, once, and never a made-up one."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.collector.channels import ChannelLookup
from trendflow_tests.dataset.collector.conftest import Desk
from trendflow_tests.dataset.collector.youtube_server import channel, error, video

IDS = [f"-video-{at:04d}" for at in range(120)]


def lookup(desk: Desk, units: int = 1000) -> ChannelLookup:
    return ChannelLookup(desk.client(units), desk.store, clock=desk.clock)


def test_channels_of_videos_are_asked_for_once(desk: Desk) -> None:
    desk.server.videos = {name: video(name, channel=f"UC_{at % 7}") for at, name in enumerate(IDS)}
    expected = {name: f"UC_{at % 7}" for at, name in enumerate(IDS)}
    assert lookup(desk).channel_ids(IDS) == expected
    assert len(desk.server.requests) == 3
    desk.clock.forward(days=1000)
    assert lookup(desk).channel_ids(reversed(IDS)) == expected
    assert len(desk.server.requests) == 3


def test_an_unknown_video_has_no_channel_and_is_tried_again_later(desk: Desk) -> None:
    desk.server.videos = {IDS[0]: video(IDS[0])}
    assert lookup(desk).channel_ids(IDS[:2]) == {IDS[0]: "UC_synthetic_1"}
    lookup(desk).channel_ids(IDS[:2])
    assert len(desk.server.requests) == 1
    desk.server.videos[IDS[1]] = video(IDS[1], channel="UC_back")
    desk.clock.forward(days=7, seconds=1)
    assert lookup(desk).channel_ids(IDS[:2])[IDS[1]] == "UC_back"
    assert desk.server.requests[-1].query["id"] == IDS[1]


def test_an_interrupted_look_up_is_continued(desk: Desk) -> None:
    desk.server.videos = {name: video(name) for name in IDS}
    with pytest.raises(TrendFlowError) as caught:
        lookup(desk, units=2).channel_ids(IDS)
    assert caught.value.detail["kind"] == "quota"
    desk.clock.forward(days=1)
    assert len(lookup(desk, units=2).channel_ids(IDS)) == 120
    assert len(desk.server.requests) == 3


def test_statistics_say_when_they_were_observed_and_grow_old(desk: Desk) -> None:
    desk.server.channels = {name: channel(name, hidden=name == "UC_1") for name in ("UC_0", "UC_1")}
    found = lookup(desk).statistics(["UC_0", "UC_1", "UC_unknown"])
    assert sorted(found) == ["UC_0", "UC_1"]
    assert (found["UC_0"].subscribers, found["UC_0"].views, found["UC_0"].videos) == (900.0, 123456.0, 42.0)
    assert math.isnan(found["UC_1"].subscribers)
    first = desk.clock()
    desk.clock.forward(hours=24)
    kept = lookup(desk).statistics(["UC_0", "UC_1"])
    assert kept["UC_0"].observed_at == first
    assert math.isnan(kept["UC_1"].subscribers)
    assert len(desk.server.requests) == 1
    desk.clock.forward(seconds=1)
    assert lookup(desk).statistics(["UC_0"])["UC_0"].observed_at == first + timedelta(hours=24, seconds=1)


def test_failures_are_those_of_the_client_and_bad_ids_are_refused(desk: Desk) -> None:
    desk.server.failures = [error(404, "channelNotFound")]
    with pytest.raises(TrendFlowError) as caught:
        lookup(desk).statistics(["UC_0"])
    assert caught.value.error_code == "source_unavailable"
    with pytest.raises(TrendFlowError) as caught:
        lookup(desk).channel_ids(["a title"])
    assert caught.value.error_code == "input_constraint_violated"


def test_no_text_is_kept(desk: Desk) -> None:
    desk.server.videos = {IDS[0]: video(IDS[0])}
    lookup(desk).channel_ids(IDS[:1])
    assert all(b"SYNTHETIC" not in desk.store.get(info.key) for info in desk.store.list())
