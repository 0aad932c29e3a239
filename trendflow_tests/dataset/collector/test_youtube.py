"""The client against a server that answers like the real API: batches, pages, every class of failure."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.collector.youtube import batches
from trendflow.storage.retry import is_exhausted
from trendflow_tests.dataset.collector.conftest import Desk
from trendflow_tests.dataset.collector.youtube_server import KEY, channel, error, video

IDS = [f"-video-{at:04d}" for at in range(120)]


def test_ids_are_asked_for_fifty_at_a_time_and_once(desk: Desk) -> None:
    desk.server.videos = {name: video(name) for name in IDS}
    found = desk.client().videos([*IDS, *IDS[:30]])
    assert sorted(found) == sorted(IDS)
    assert [len(request.query["id"].split(",")) for request in desk.server.requests] == [50, 50, 20]
    assert desk.quota().remaining == 1000 - 3
    assert found[IDS[0]]["statistics"]["viewCount"] == "1000"


def test_deleted_and_private_videos_are_not_in_the_answer(desk: Desk) -> None:
    desk.server.videos = {IDS[1]: video(IDS[1])}
    assert list(desk.client().videos(IDS[:3])) == [IDS[1]]


def test_nothing_is_asked_for_nothing(desk: Desk) -> None:
    assert desk.client().videos([]) == {}
    assert desk.server.requests == []


def test_fifty_channels_come_in_one_answer(desk: Desk) -> None:
    names = [f"UC_{at}" for at in range(50)]
    desk.server.channels = {name: channel(name) for name in names}
    assert sorted(desk.client().channels(names)) == sorted(names)
    assert len(desk.server.requests) == 1


def test_pages_are_followed_to_the_last(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"UC_{at}" for at in range(23)]
    desk.server.channels = {name: channel(name) for name in names}
    monkeypatch.setattr("trendflow.dataset.collector.youtube.BATCH", 10)  # what is asked for per page
    assert sorted(desk.client().channels(names)) == sorted(names)
    assert [request.query.get("pageToken") for request in desk.server.requests] == [None, "10", "20"]
    assert desk.quota().remaining == 1000 - 3


def test_the_key_is_in_no_address(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    desk.server.videos = {IDS[0]: video(IDS[0])}
    desk.server.failures = [error(503, "backendError")]
    with caplog.at_level(logging.DEBUG):
        assert desk.client().videos(IDS[:1])
    assert desk.server.requests
    assert all(KEY not in request.raw for request in desk.server.requests)
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("failure", "code", "tries"),
    [
        (error(403, "rateLimitExceeded"), "rate_limited", 4),
        (error(403, "userRateLimitExceeded"), "rate_limited", 4),
        (error(429, "rateLimitExceeded", "RATE_LIMIT_EXCEEDED"), "rate_limited", 4),
        ((429, b"slow down", {}), "rate_limited", 4),
        (error(500, "backendError"), "network_error", 4),
        (error(503, "backendError"), "network_error", 4),
        ((502, b"<html>Bad gateway</html>", {}), "network_error", 4),
        ((200, b"{half of an ans", {}), "network_error", 4),
        (error(403, "quotaExceeded"), "rate_limited", 1),
        (error(403, "dailyLimitExceeded"), "rate_limited", 1),
        (error(404, "videoNotFound"), "source_unavailable", 1),
        (error(400, "badRequest", "API_KEY_INVALID"), "config_invalid", 1),
        (error(403, "accessNotConfigured", "SERVICE_DISABLED"), "config_invalid", 1),
        (error(403, "forbidden"), "config_invalid", 1),
        (error(401, "authError"), "config_invalid", 1),
        (error(400, "invalidParameter"), "internal_error", 1),
    ],
)
def test_each_class_of_failure_is_tried_as_often_as_it_may_be(desk: Desk, failure: Any, code: str, tries: int) -> None:
    desk.server.failures = [failure] * 6
    with pytest.raises(TrendFlowError) as caught:
        desk.client().videos(IDS[:1])
    assert caught.value.error_code == code
    assert len(desk.server.requests) == tries
    assert is_exhausted(caught.value) is (tries > 1)
    assert KEY not in f"{caught.value} {caught.value.detail}"
    spent = 1000 if (caught.value.detail.get("kind") == "quota") else tries
    assert desk.quota().remaining == 1000 - spent, "a refused call costs as much as another"


def test_a_connection_that_breaks_is_a_network_error(desk: Desk) -> None:
    desk.server.failures = [None] * 40  # the library itself tries again on a new connection
    with pytest.raises(TrendFlowError) as caught:
        desk.client().videos(IDS[:1])
    assert caught.value.error_code == "network_error"
    assert len(desk.waits) == 3


def test_nobody_listens(desk: Desk) -> None:
    desk.server.url = "http://127.0.0.1:1"
    with pytest.raises(TrendFlowError) as caught:
        desk.client().videos(IDS[:1])
    assert caught.value.error_code == "network_error"


def test_a_server_that_says_nothing_is_given_up(desk: Desk) -> None:
    desk.server.failures = ["silent"] * 10
    with pytest.raises(TrendFlowError) as caught:
        desk.client(timeout_sec=0.05).videos(IDS[:1])
    assert caught.value.error_code == "timeout"
    assert len(desk.waits) == 2


def test_a_short_failure_does_not_show(desk: Desk) -> None:
    desk.server.videos = {IDS[0]: video(IDS[0])}
    desk.server.failures = [error(503, "backendError"), error(429, "rateLimitExceeded")]
    assert list(desk.client().videos(IDS[:1])) == IDS[:1]
    assert len(desk.waits) == 2


def test_waits_grow_by_chance_and_obey_the_server(desk: Desk) -> None:
    desk.server.failures = [error(503, "backendError")] * 3
    desk.server.videos = {IDS[0]: video(IDS[0])}
    desk.client().videos(IDS[:1])
    for wait, longest in zip(desk.waits, (2.0, 4.0, 8.0), strict=True):
        assert longest / 2 <= wait <= longest
    desk.server.failures = [error(429, "rateLimitExceeded", Retry_After="77")]
    desk.client().videos(IDS[:1])
    assert desk.waits[-1] == 77.0


def test_the_day_is_over_when_the_platform_says_so(desk: Desk) -> None:
    desk.server.failures = [error(403, "quotaExceeded")]
    for _ in range(2):
        with pytest.raises(TrendFlowError) as caught:
            desk.client().videos(IDS[:1])
        assert (caught.value.error_code, caught.value.detail["kind"]) == ("rate_limited", "quota")
    assert len(desk.server.requests) == 1, "the second call is not even made"
    desk.clock.forward(days=1)
    assert desk.client().videos(IDS[:1]) == {}


def test_a_wrong_key_is_a_wrong_setting(desk: Desk) -> None:
    with pytest.raises(TrendFlowError, match="TRENDFLOW_YOUTUBE_API_KEY") as caught:
        desk.client(key="wrong").videos(IDS[:1])
    assert caught.value.error_code == "config_invalid"


def test_batches_are_distinct_and_in_order() -> None:
    assert list(batches("abcab", 2)) == [("a", "b"), ("c",)]
