"""The videos of a channel or playlist, as the platform lists them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.download import UrlPolicy, check_url, closed_options, run_ytdlp
from trendflow.submission.lists import MAX_ENTRIES, Entry
from trendflow.submission.sources import parse_url

CHANNELS = UrlPolicy(extractors=("youtube:tab", "youtube:playlist"))
_DEPTH = 3


def channel_entries(url: str, limit: int = MAX_ENTRIES, *, policy: UrlPolicy = CHANNELS) -> list[Entry]:
    """Up to `limit` videos behind the URL, each once, in the platform's order.

    Only the list is read, no video is opened. Raises `input_constraint_violated` for another address or a bad limit,
    `source_unavailable` where no video is listed, `rate_limited`, `network_error` or `timeout`.
    """
    if not 1 <= limit <= MAX_ENTRIES:
        raise TrendFlowError("input_constraint_violated", f"A channel gives 1 to {MAX_ENTRIES} videos.")
    check_url(url, policy)
    options = {**closed_options(policy), "extract_flat": "in_playlist", "lazy_playlist": False, "playlistend": limit}
    listed = dict.fromkeys(listed_videos(run_ytdlp(url, options, download=False)))
    entries = [Entry(f"video {number}", parse_url(found)) for number, found in enumerate(listed, start=1)]
    if not entries:
        raise TrendFlowError("source_unavailable", "The platform lists no video at this address.")
    return entries[:limit]


def listed_videos(info: Mapping[str, Any], depth: int = _DEPTH) -> Iterator[str]:
    """Plain URLs of the videos in what yt-dlp says about a list; what is no video is left out.

    Lists of lists are followed: a channel consists of tabs (videos, shorts, streams), each a list of its own.
    """
    for entry in info.get("entries") or ():
        if not isinstance(entry, Mapping):
            continue
        if entry.get("entries") is not None:
            yield from listed_videos(entry, depth - 1) if depth else ()
            continue
        try:
            yield parse_url(str(entry.get("url") or "")).locator
        except TrendFlowError:
            continue  # a tab, a post, another site
