"""Lists of videos read from an HTTP server on this machine through the same yt-dlp set-up."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.download import UrlPolicy
from trendflow.submission.channel import CHANNELS, channel_entries, listed_videos
from trendflow.submission.sources import Source

LINKS = (
    "https://www.youtube.com/watch?v=abcdefghijk&amp;list=x",
    "https://www.youtube.com/shorts/lmnopqrstuv",
    "https://www.youtube.com/@somebody/community",
    "https://youtu.be/abcdefghijk",
    "https://example.org/video.mp4",
    "https://youtu.be/-BCDEFGHIJK",
)


@dataclass
class Feed:
    """A web server with one list of links."""

    links: tuple[str, ...] = LINKS
    status: int = 200
    requests: list[str] = field(default_factory=list)
    address: str = ""

    @property
    def url(self) -> str:
        return f"http://{self.address}/feed.xml"

    @property
    def policy(self) -> UrlPolicy:
        return UrlPolicy(frozenset({self.address}), ("generic",))

    @property
    def body(self) -> bytes:
        items = "".join(f"<item><title>t</title><link>{link}</link></item>" for link in self.links)
        return f'<?xml version="1.0"?><rss version="2.0"><channel><title>c</title>{items}</channel></rss>'.encode()


@pytest.fixture
def feed() -> Iterator[Feed]:
    feed = Feed()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            feed.requests.append(self.path)
            self.send_response(feed.status)
            self.send_header("Content-Type", "application/rss+xml")
            self.end_headers()
            if feed.status == 200 and self.command == "GET":
                self.wfile.write(feed.body)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    feed.address = f"127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield feed
    server.shutdown()
    server.server_close()


def listed(feed: Feed, limit: int = 100) -> list[str]:
    outcomes = [entry.outcome for entry in channel_entries(feed.url, limit, policy=feed.policy)]
    return [outcome.locator for outcome in outcomes if isinstance(outcome, Source)]


def test_the_videos_of_a_list_each_once_and_in_order(feed: Feed) -> None:
    plain = [f"https://www.youtube.com/watch?v={name}" for name in ("abcdefghijk", "lmnopqrstuv", "-BCDEFGHIJK")]
    assert listed(feed) == plain
    assert set(feed.requests) == {"/feed.xml"}  # no video was opened
    assert listed(feed, 1) == plain[:1]


@pytest.mark.parametrize(
    ("status", "code"), [(404, "source_unavailable"), (429, "rate_limited"), (503, "network_error")]
)
def test_a_list_that_is_not_given_out(feed: Feed, status: int, code: str) -> None:
    feed.status = status
    with pytest.raises(TrendFlowError) as caught:
        listed(feed)
    assert caught.value.error_code == code


def test_a_list_without_videos(feed: Feed) -> None:
    feed.links = ("https://example.org/video.mp4",)
    with pytest.raises(TrendFlowError) as caught:
        listed(feed)
    assert caught.value.error_code == "source_unavailable"


def test_the_tabs_of_a_channel_are_followed() -> None:
    """The shape that yt-dlp gives a channel with several tabs."""
    videos = {"_type": "playlist", "entries": [{"_type": "url", "url": LINKS[3]}, None, {"_type": "url"}]}
    shorts = {"_type": "playlist", "entries": iter([{"_type": "url", "url": LINKS[1]}])}
    tab = {"_type": "url", "url": "https://www.youtube.com/@somebody/streams"}
    assert list(listed_videos({"_type": "playlist", "entries": [videos, shorts, tab]})) == [
        "https://www.youtube.com/watch?v=abcdefghijk",
        "https://www.youtube.com/watch?v=lmnopqrstuv",
    ]
    assert list(listed_videos({"_type": "video", "id": "abcdefghijk"})) == []


@pytest.mark.parametrize("url", ["https://example.org/@somebody", "file:///etc/passwd", "/etc/passwd", "https://[x"])
def test_other_addresses_are_not_asked(url: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        channel_entries(url)
    assert caught.value.error_code == "input_constraint_violated"
    with pytest.raises(TrendFlowError):
        channel_entries("https://www.youtube.com/@somebody", 0)


def test_only_lists_of_the_platform_are_read() -> None:
    from yt_dlp import YoutubeDL

    from trendflow.media.download import closed_options

    with YoutubeDL(closed_options(CHANNELS)) as client:
        chosen = {name for name, extractor in client._ies.items() if extractor is not None}
    assert chosen == {"YoutubeTab", "YoutubePlaylist"}
