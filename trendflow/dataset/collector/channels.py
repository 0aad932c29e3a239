"""Channels of videos, looked up on the platform: asked for in batches, kept in the object store, within the quota."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import validate_video_id
from trendflow.dataset.collector.channel_statistics import ChannelStatistics, channel_statistics
from trendflow.dataset.collector.collect import Api
from trendflow.dataset.collector.quota import Clock, utc_clock
from trendflow.dataset.collector.snapshot_store import CHANNELS, PLATFORM
from trendflow.dataset.collector.youtube import BATCH, batches
from trendflow.dataset.snapshots.values import number_or_nan, utc_time
from trendflow.storage.object_store import ObjectNotFound, ObjectStore

_STATISTICS = f"snapshots/channels/{PLATFORM}/statistics"
_READERS = 8

Document = Mapping[str, Any]


class ChannelLookup:
    """Answers that were given before are not asked for again: a video never changes its channel.

    `unknown_for`: how long a video without an answer counts as unknown. `statistics_for`: how old counters may be.
    Every batch is kept as soon as it is answered, so what an error interrupts is continued by the next call.
    """

    def __init__(
        self,
        api: Api,
        store: ObjectStore,
        *,
        unknown_for: timedelta = timedelta(days=7),
        statistics_for: timedelta = timedelta(hours=24),
        clock: Clock = utc_clock,
    ) -> None:
        self._api, self._store, self._clock = api, store, clock
        self._unknown_for, self._statistics_for = unknown_for, statistics_for

    def channel_ids(self, video_ids: Iterable[str]) -> dict[str, str]:
        """Video → channel, without the videos the platform does not know. Errors as `YouTubeClient.channels`.

        Raises `input_constraint_violated` for an id that is no video's of the platform.
        """
        asked = list(dict.fromkeys(video_ids))
        for video_id in asked:
            validate_video_id(PLATFORM, video_id)

        def ask(batch: Sequence[str]) -> dict[str, Document]:
            items = self._api.videos(batch)
            at = self._clock().isoformat()
            return {
                name: {"channel_id": items[name]["snippet"]["channelId"] if name in items else None, "observed_at": at}
                for name in batch
            }

        found = self._answers(CHANNELS, asked, lambda known: bool(known["channel_id"]), self._unknown_for, ask)
        return {name: document["channel_id"] for name, document in found.items() if document["channel_id"]}

    def statistics(self, channel_ids: Iterable[str]) -> dict[str, ChannelStatistics]:
        """Channel → its counters and when they were observed, without channels the platform does not know.

        Errors as `YouTubeClient.channels`.
        """

        def ask(batch: Sequence[str]) -> dict[str, Document]:
            items = self._api.channels(batch)
            at = self._clock()
            return {name: _document(channel_statistics(item, at)) for name, item in items.items()}

        found = self._answers(_STATISTICS, list(dict.fromkeys(channel_ids)), lambda _: False, self._statistics_for, ask)
        return {name: _statistics(document) for name, document in found.items()}

    def _answers(
        self,
        root: str,
        names: Sequence[str],
        lasting: Callable[[Document], bool],
        lifetime: timedelta,
        ask: Callable[[Sequence[str]], dict[str, Document]],
    ) -> dict[str, Document]:
        """Kept answers that last or are young enough, and those of the API for the rest."""
        oldest = self._clock() - lifetime
        with ThreadPoolExecutor(_READERS) as readers:
            kept = zip(names, readers.map(lambda name: self._kept(f"{root}/{name}.json"), names), strict=True)
            found = {
                name: document
                for name, document in kept
                if document is not None and (lasting(document) or _time(document) >= oldest)
            }
        for batch in batches((name for name in names if name not in found), BATCH):
            answers = ask(batch)
            for name, document in answers.items():
                self._store.put(f"{root}/{name}.json", canonical_json(document))
            found |= answers
        return {name: found[name] for name in names if name in found}

    def _kept(self, key: str) -> Document | None:
        try:
            document = json.loads(self._store.get(key))
            _time(document)
        except ObjectNotFound:
            return None
        except (ValueError, TypeError, KeyError) as exc:
            raise TrendFlowError("artifact_validation_failed", f"The kept answer {key} is not readable.") from exc
        return dict(document)


def _document(found: ChannelStatistics) -> Document:
    values = {name: None if value != value else value for name, value in asdict(found).items()}
    return {**values, "observed_at": found.observed_at.isoformat()}


def _statistics(document: Document) -> ChannelStatistics:
    return ChannelStatistics(
        subscribers=number_or_nan(document["subscribers"]),
        views=number_or_nan(document["views"]),
        videos=number_or_nan(document["videos"]),
        observed_at=_time(document),
    )


def _time(document: Document) -> datetime:
    found = utc_time(document["observed_at"])
    if found is None:
        raise ValueError("no time")
    return found
