"""One run of the collector: take every snapshot that is due, and write down what can no longer be taken."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.collector.api_errors import QUOTA
from trendflow.dataset.collector.channel_statistics import ChannelStatistics, channel_statistics
from trendflow.dataset.collector.quota import Clock, utc_clock
from trendflow.dataset.collector.schedule import Due, SchedulePolicy, schedule
from trendflow.dataset.collector.snapshot_store import Outcome, SnapshotStore
from trendflow.dataset.collector.youtube import Item, batches
from trendflow.dataset.snapshots.values import NAN, number_or_nan

# How old a channel's counters may be when they stand in a snapshot; a channel's videos are often due together.
_CHANNEL_AGE = timedelta(minutes=15)
_MAY_BE_HIDDEN = ("likes", "comments", "channel_subscribers")
_WRITERS = 8


class Api(Protocol):
    """The two questions the collector asks; `YouTubeClient` answers them."""

    def videos(self, video_ids: Iterable[str]) -> Mapping[str, Item]: ...

    def channels(self, channel_ids: Iterable[str]) -> Mapping[str, Item]: ...


@dataclass(frozen=True)
class CollectReport:
    """What one run did. `deferred` snapshots wait for the next run because the quota ended: `stopped` says so.

    `hidden`: snapshots without `likes`, `comments` (hidden or disabled) or `channel_subscribers`.
    """

    observed: int
    unavailable: int
    missed: int
    deferred: int
    hidden: Mapping[str, int]
    stopped: TrendFlowError | None = None


def collect(
    store: SnapshotStore,
    api: Api,
    policy: SchedulePolicy | None = None,
    *,
    clock: Clock = utc_clock,
    progress: Callable[[int, int], None] | None = None,
) -> CollectReport:
    """Take what is due now, in batches, the most urgent first. Safe to repeat and to run twice at a time.

    `progress` is told how many of how many due snapshots are settled. When the quota ends, what is left stays due.
    Raises the errors of `YouTubeClient` for other failures; what was taken until then is kept.
    """
    policy = policy or SchedulePolicy()
    plan = schedule(store.unfinished(policy.horizons_days), clock(), policy)
    due = [item for item in plan if item.state == "due"]
    missed = [item for item in plan if item.state == "missed"]
    for item in missed:
        store.add(item.video_id, item.days, item.due_at, "missed", clock())
    found: Counter[str] = Counter()
    hidden: Counter[str] = Counter()
    channels = _Channels(api, clock)
    settled, stopped = 0, None
    for ids in batches(item.video_id for item in due):
        batch = due[settled : settled + len(ids)]
        try:
            _take(batch, store, api, channels, clock, found, hidden)
        except TrendFlowError as error:
            if error.detail.get("kind") != QUOTA:
                raise
            stopped = error
            break
        settled += len(batch)
        if progress is not None:
            progress(settled, len(due))
    return CollectReport(
        observed=found["observed"],
        unavailable=found["unavailable"],
        missed=len(missed),
        deferred=len(due) - settled,
        hidden=dict(sorted(hidden.items())),
        stopped=stopped,
    )


def _take(
    batch: Sequence[Due],
    store: SnapshotStore,
    api: Api,
    channels: _Channels,
    clock: Clock,
    found: Counter[str],
    hidden: Counter[str],
) -> None:
    """Ask for a batch and store the answers. Nothing of it is stored unless both questions were answered."""
    items = api.videos(item.video_id for item in batch)
    statistics = channels.of(item["snippet"]["channelId"] for item in items.values())
    at = clock()

    def settle(due: Due) -> tuple[Outcome, bool, list[str]]:
        item = items.get(due.video_id)
        if item is None:
            return "unavailable", store.add(due.video_id, due.days, due.due_at, "unavailable", at), []
        counters = _counters(item, statistics.get(item["snippet"]["channelId"]))
        new = store.add(due.video_id, due.days, due.due_at, "observed", at, counters, _metadata(item))
        return "observed", new, [name for name in _MAY_BE_HIDDEN if math.isnan(counters[name])]

    with ThreadPoolExecutor(_WRITERS) as writers:
        for outcome, new, absent in writers.map(settle, batch):
            if new:  # else another collector was first
                found[outcome] += 1
                hidden.update(absent)


class _Channels:
    """Counters of channels, asked for once in a while."""

    def __init__(self, api: Api, clock: Clock) -> None:
        self._api, self._clock = api, clock
        self._known: dict[str, ChannelStatistics] = {}

    def of(self, channel_ids: Iterable[str]) -> Mapping[str, ChannelStatistics]:
        now = self._clock()
        self._known = {name: found for name, found in self._known.items() if now - found.observed_at <= _CHANNEL_AGE}
        unknown = [name for name in channel_ids if name not in self._known]
        items = self._api.channels(unknown) if unknown else {}
        self._known |= {name: channel_statistics(item, self._clock()) for name, item in items.items()}
        return self._known


def _counters(item: Item, channel: ChannelStatistics | None) -> dict[str, float]:
    """Counters as numbers. Hidden likes and disabled comments are not in the answer and become NaN."""
    statistics = item.get("statistics", {})
    return {
        "views": number_or_nan(statistics.get("viewCount")),
        "likes": number_or_nan(statistics.get("likeCount")),
        "comments": number_or_nan(statistics.get("commentCount")),
        "channel_subscribers": channel.subscribers if channel else NAN,
        "channel_views": channel.views if channel else NAN,
        "channel_videos": channel.videos if channel else NAN,
    }


def _metadata(item: Item) -> dict[str, Any]:
    """The metadata of `videos_v1` under the platform's names. The API leaves out `tags` when there are none."""
    snippet, content, status = item["snippet"], item.get("contentDetails", {}), item.get("status", {})
    names = ("publishedAt", "channelId", "channelTitle", "title", "description", "categoryId", "thumbnails")
    return {
        **{name: snippet[name] for name in names if name in snippet},
        "tags": snippet.get("tags", []),
        "language": snippet.get("defaultAudioLanguage") or snippet.get("defaultLanguage"),
        "duration": content.get("duration"),
        "definition": content.get("definition"),
        "caption": content.get("caption"),
        "madeForKids": status.get("madeForKids"),
    }
