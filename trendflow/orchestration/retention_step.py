"""Retention and erasure of a deployment, its Dagster history included: for commands, schedules and the service."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dagster import DagsterInstance

from trendflow.orchestration.deleted import tombstones
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.history import open_instance
from trendflow.orchestration.launch import typed_database
from trendflow.orchestration.run_history import DagsterHistory, purge, stale_partitions
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


def open_eraser(deployment: Deployment, instance: DagsterInstance) -> Eraser:
    """Raises `config_invalid` without TRENDFLOW_TOMBSTONE_KEY."""
    key = deployment.settings.tombstone_key
    secret = None if key is None else key.get_secret_value().encode()
    texts = waiting_texts(deployment.settings)
    beside = () if texts is None else (texts,)
    history = Histories(*beside, DagsterHistory(instance))
    return Eraser(deployment.store, deployment.schemas, secret, history=history)


def clean_up_deployment(deployment: Deployment, instance: DagsterInstance, *, dry_run: bool) -> CleanedUp:
    """One garbage collection. Raises `config_invalid` when videos were deleted and their key is not set."""
    settings = deployment.settings
    report = clean_up(
        deployment.store,
        RetentionPolicy(frames=timedelta(days=settings.frames_ttl_days)),
        tombstones(deployment),
        None if settings.tombstone_key is None else open_eraser(deployment, instance),
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
