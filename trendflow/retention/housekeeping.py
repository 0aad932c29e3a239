"""What is done daily, and what the service asks for, on one store."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from trendflow.retention.clocks import require_same_clock
from trendflow.retention.collect import GarbageCollector, RetentionReport
from trendflow.retention.erasure import Document, Eraser
from trendflow.retention.policy import RetentionPolicy
from trendflow.retention.tables import rebuild_tables
from trendflow.storage.object_store import ObjectStore


def clean_up(
    store: ObjectStore,
    policy: RetentionPolicy,
    deleted: Container[tuple[str, str]],
    eraser: Eraser | None,
    *,
    dry_run: bool,
    now: str | None = None,
) -> RetentionReport:
    """Finish the deletions that were requested, then remove what is older than it is kept.

    `eraser` is None where no key for deleted videos is set, and nobody was deleted. A table that somebody published
    with a deleted video after all, because the import had begun before, is published without it. A deletion whose runs
    do not stop stays pending, and nothing of its video is touched. `now` is the time of this machine unless it is
    given. Raises `config_invalid` when that is not the time of the store.
    """
    if now is None:
        require_same_clock(store)
    pending = set() if eraser is None else set(eraser.pending_videos())
    finished = len(pending)
    if dry_run:
        # Their objects belong to the deletion, whatever their age.
        collector = GarbageCollector(store, policy, now=now, deleted=deleted, excluded=pending)
        report = collector.report(collector.plan())
    else:
        if eraser is not None:
            finished = len(eraser.continue_all())
            pending = set(eraser.pending_videos())
            rebuild_tables(store, deleted)
        collector = GarbageCollector(store, policy, now=now, deleted=deleted, excluded=pending)
        report = collector.collect(collector.plan())
    report.deletions = finished
    return report


class DeletionDesk:
    """Deletions as the service takes them: requested at once, done by the next clean-up. Who asked is not kept."""

    def __init__(self, eraser: Eraser) -> None:
        self._eraser = eraser

    def request(self, platform_id: str, video_id: str, *, by: str) -> str:
        """Refuse the video from now on and note its deletion. Returns the id of the request, always the same."""
        return self._eraser.request(platform_id, video_id)

    def report(self, request_id: str) -> Document | None:
        """`status` `pending` or `complete`, then with the receipt; None for an unknown request."""
        receipt = self._eraser.receipt_of(request_id)
        if self._eraser.is_pending(request_id):
            return {"status": "pending", "tombstone_id": request_id}
        found: dict[str, Any] | None = None if receipt is None else {"status": "complete", **receipt}
        return found
