"""The client of this deployment, from its settings."""

from __future__ import annotations

from trendflow.config import Settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.collector.quota import QuotaBudget
from trendflow.dataset.collector.youtube import YouTubeClient
from trendflow.storage.object_store import ObjectStore


def open_client(settings: Settings, store: ObjectStore) -> YouTubeClient:
    """A client that spends from the quota kept in `store`. Raises `config_invalid` when no key is set."""
    if settings.youtube_api_key is None:
        raise TrendFlowError(
            "config_invalid", "A key of the YouTube Data API is needed; set TRENDFLOW_YOUTUBE_API_KEY."
        )
    quota = QuotaBudget(store, settings.youtube_daily_units)
    return YouTubeClient(settings.youtube_api_key.get_secret_value(), quota, endpoint=settings.youtube_endpoint)
