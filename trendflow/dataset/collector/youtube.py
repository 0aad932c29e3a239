"""The YouTube Data API v3: videos and channels by id, in batches, within the quota, tried again where that helps."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import httplib2
from googleapiclient.discovery import build

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.collector.api_errors import FAILURES, QUOTA, as_api_error
from trendflow.dataset.collector.quota import QuotaBudget
from trendflow.storage.retry import exhausted

BATCH = 50
"""Ids the API takes in one call."""

_VIDEO_PARTS = "snippet,statistics,contentDetails,status"
_CHANNEL_PARTS = "statistics"
_TIMEOUT_SEC = 30.0
_FIRST_WAIT_SEC = 1.0
_LONGEST_WAIT_SEC = 60.0

Item = Mapping[str, Any]


class YouTubeClient:
    """Answers of the API by id. An id without an answer is deleted, private or was never given.

    `endpoint` replaces the public address, `sleep` the waiting between tries. Not for use by several threads.
    """

    def __init__(
        self,
        api_key: str,
        quota: QuotaBudget,
        *,
        endpoint: str | None = None,
        sleep: Callable[[float], None] = time.sleep,
        timeout_sec: float = _TIMEOUT_SEC,
    ) -> None:
        self._quota, self._sleep = quota, sleep
        # As a header: in the address, where the client library puts it, the key would reach logs and error messages.
        self._headers = {"x-goog-api-key": api_key}
        self._api = build(
            "youtube",
            "v3",
            http=httplib2.Http(timeout=timeout_sec),
            static_discovery=True,
            client_options={"api_endpoint": endpoint.rstrip("/") + "/"} if endpoint else None,
        )

    def videos(self, video_ids: Iterable[str]) -> dict[str, Item]:
        """Snippet, statistics, content details and status of videos. Errors as `channels`."""
        found: dict[str, Item] = {}
        for ids in batches(video_ids):
            resource = self._api.videos()  # takes no maxResults beside ids
            found |= self._pages(resource, resource.list(part=_VIDEO_PARTS, id=",".join(ids)))
        return found

    def channels(self, channel_ids: Iterable[str]) -> dict[str, Item]:
        """Statistics of channels.

        Raises `rate_limited` (`detail.kind = "quota"` when the day's quota is used up), `network_error` and `timeout`
        after the tries their class allows, `config_invalid` for a refused key, `source_unavailable` for a 404.
        """
        found: dict[str, Item] = {}
        for ids in batches(channel_ids):
            resource = self._api.channels()  # answers with five of them unless more are asked for
            found |= self._pages(resource, resource.list(part=_CHANNEL_PARTS, id=",".join(ids), maxResults=BATCH))
        return found

    def _pages(self, resource: Any, request: Any) -> dict[str, Item]:
        found: dict[str, Item] = {}
        while request is not None:
            response = self._call(request)
            found |= {item["id"]: item for item in response.get("items", [])}
            request = resource.list_next(request, response)
        return found

    def _call(self, request: Any) -> dict[str, Any]:
        request.headers.update(self._headers)
        failures = 0
        while True:
            self._quota.take()
            try:
                return dict(request.execute(num_retries=0))
            except FAILURES as exc:
                error = as_api_error(exc)
                if error.detail.get("kind") == QUOTA:
                    self._quota.close_day()
                    raise error from exc
                failures += 1
                if error.error_class != "transient":
                    raise error from exc
                if failures > error.rule.max_retries:
                    raise exhausted(error) from exc
                self._sleep(_wait(failures, error))


def batches(ids: Iterable[str], size: int = BATCH) -> Iterator[Sequence[str]]:
    """Distinct ids in their order, `size` at a time."""
    left = iter(dict.fromkeys(ids))
    while batch := tuple(islice(left, size)):
        yield batch


def _wait(failures: int, error: TrendFlowError) -> float:
    """Seconds before the next try: twice as long each time, half of it by chance, and no shorter than asked for."""
    longest = min(_FIRST_WAIT_SEC * 2**failures, _LONGEST_WAIT_SEC)
    return max(random.uniform(longest / 2, longest), float(error.detail.get("retry_after", 0.0)))
