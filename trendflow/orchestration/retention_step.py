"""Retention and erasure of a deployment, its Dagster history included: for commands, schedules and the service."""

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dagster import DagsterInstance

from trendflow.config import Settings
from trendflow.orchestration.deleted import tombstones
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.history import open_instance
from trendflow.orchestration.launch import typed_database
from trendflow.orchestration.queue.board import Board, living
from trendflow.orchestration.queue.names import Rhythm
from trendflow.orchestration.run_history import DagsterHistory, purge, stale_partitions
from trendflow.orchestration.run_stop import DagsterExecutions
from trendflow.orchestration.waiting_text import waiting_texts
from trendflow.retention.erasure import Eraser
from trendflow.retention.housekeeping import DeletionDesk, clean_up
from trendflow.retention.policy import RetentionPolicy
from trendflow.retention.traces import Histories


@dataclass(frozen=True)
class CleanedUp:
    """`report`: a document `retention_report_v1`. `partitions`: retired with their events, or to be retired."""

    report: dict[str, Any]
    partitions: int


def open_eraser(
    deployment: Deployment, instance: DagsterInstance, wait: Callable[[float], object] = time.sleep
) -> Eraser:
    """`wait` pauses for seconds. Raises `config_invalid` without TRENDFLOW_TOMBSTONE_KEY."""
    key = deployment.settings.tombstone_key
    secret = None if key is None else key.get_secret_value().encode()
    texts = waiting_texts(deployment.settings)
    beside = () if texts is None else (texts,)
    return Eraser(
        deployment.store,
        deployment.schemas,
        secret,
        history=Histories(*beside, DagsterHistory(instance)),
        executions=DagsterExecutions(instance, _at_work(deployment.settings)),
        wait=wait,
    )


def _at_work(settings: Settings) -> Callable[[], Collection[str]]:
    """The Dagster runs that living workers of the queue have in their hands; none without a queue."""
    broker = settings.broker_url

    def look() -> Collection[str]:
        if broker is None:
            return ()
        with closing(Board(broker.get_secret_value())) as board:
            alive = {seen.facts.worker for seen in living(board.workers(), Rhythm().silent_s)}
            return [run for run, worker in board.running().items() if worker in alive]

    return look


def clean_up_deployment(
    deployment: Deployment,
    instance: DagsterInstance,
    *,
    dry_run: bool,
    wait: Callable[[float], object] = time.sleep,
) -> CleanedUp:
    """One garbage collection; deletions `wait` for runs to stop.

    Raises `config_invalid` when videos were deleted and their key is not set.
    """
    settings = deployment.settings
    report = clean_up(
        deployment.store,
        RetentionPolicy(frames=timedelta(days=settings.frames_ttl_days)),
        tombstones(deployment),
        None if settings.tombstone_key is None else open_eraser(deployment, instance, wait),
        dry_run=dry_run,
    )
    stale = stale_partitions(instance, deployment.store)
    retired = len(stale) if dry_run else sum(purge(instance, key) for key in stale)
    return CleanedUp(report.as_dict(), retired)


def clean_up_here(deployment: Deployment, *, dry_run: bool) -> CleanedUp:
    """`clean_up_deployment` with the instance of DAGSTER_HOME."""
    with typed_database(), open_instance() as instance:
        return clean_up_deployment(deployment, instance, dry_run=dry_run)


def delete_here(deployment: Deployment, platform_id: str, video_id: str, reason: str) -> dict[str, Any]:
    """Erase a video, with its history in DAGSTER_HOME. Returns the receipt; errors as `Eraser.erase`."""
    with typed_database(), open_instance() as instance:
        return open_eraser(deployment, instance).erase(platform_id, video_id, reason=reason)


def lift_here(deployment: Deployment, platform_id: str, video_id: str) -> bool:
    """Let a deleted video be submitted again; errors as `Eraser.lift`."""
    with typed_database(), open_instance() as instance:
        return open_eraser(deployment, instance).lift(platform_id, video_id)


class CleanUpHere:
    """Clean-ups as the service asks for them."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def cleanup(self, *, dry_run: bool) -> Mapping[str, Any]:
        """Clean up, or say what would go; a document `retention_report_v1`."""
        return clean_up_here(self._deployment, dry_run=dry_run).report


def deletion_desk(deployment: Deployment) -> DeletionDesk | None:
    """Deletions as the service takes them; None without TRENDFLOW_TOMBSTONE_KEY. The next clean-up does them."""
    key = deployment.settings.tombstone_key
    if key is None:
        return None
    return DeletionDesk(Eraser(deployment.store, deployment.schemas, key.get_secret_value().encode()))
