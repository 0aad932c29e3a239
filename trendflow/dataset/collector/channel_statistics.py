"""Counters of a channel as the API answers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trendflow.dataset.snapshots.values import number_or_nan


@dataclass(frozen=True)
class ChannelStatistics:
    """Counters of one channel at `observed_at` (UTC), NaN where they are hidden."""

    subscribers: float
    views: float
    videos: float
    observed_at: datetime


def channel_statistics(item: Mapping[str, Any], at: datetime) -> ChannelStatistics:
    """Statistics from an item of `channels.list`. Hidden subscribers are unknown, whatever number stands there."""
    statistics = item.get("statistics", {})
    subscribers = None if statistics.get("hiddenSubscriberCount") else statistics.get("subscriberCount")
    return ChannelStatistics(
        subscribers=number_or_nan(subscribers),
        views=number_or_nan(statistics.get("viewCount")),
        videos=number_or_nan(statistics.get("videoCount")),
        observed_at=at,
    )
