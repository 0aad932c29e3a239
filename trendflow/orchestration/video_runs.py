"""Dagster runs that process a video, whoever launched them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from dagster import DagsterInstance, DagsterRun, RunsFilter
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.storage.dagster_run import RunRecord
from dagster._core.storage.tags import PARTITION_NAME_TAG

from trendflow.contracts.graph import ComponentGraph
from trendflow.orchestration.assets import MANIFEST, REPORT
from trendflow.orchestration.jobs import PROCESS_VIDEO

_CHUNK = 100


def video_key(graph: ComponentGraph, run: DagsterRun) -> str | None:
    """The partition that a Dagster run processes, at least in part; None for one that does something else.

    Besides `process_video` it is the job that the UI and its backfills launch for any assets, among them those of a
    video run.
    """
    if run.job_name == PROCESS_VIDEO:
        return run.tags.get(PARTITION_NAME_TAG)
    if run.job_name != IMPLICIT_ASSET_JOB_NAME:
        return None
    mine = {*graph.components, MANIFEST, REPORT}
    chosen = {key.path[-1] for key in run.asset_selection or ()}
    return run.tags.get(PARTITION_NAME_TAG) if chosen & mine else None


def latest_records(
    instance: DagsterInstance,
    graph: ComponentGraph,
    partition_keys: Iterable[str],
    *,
    since: datetime | None = None,
) -> dict[str, RunRecord]:
    """The latest processing of each of these partitions that Dagster knows, by partition key.

    `since`: of those that were created then or later, where a partition may have a long history.
    """
    keys, found = list(partition_keys), dict[str, RunRecord]()
    after = None if since is None else since - timedelta(microseconds=1)
    for start in range(0, len(keys), _CHUNK):
        chunk = RunsFilter(tags={PARTITION_NAME_TAG: keys[start : start + _CHUNK]}, created_after=after)
        for record in instance.get_run_records(chunk):  # the latest first
            key = video_key(graph, record.dagster_run)
            if key is not None:
                found.setdefault(key, record)
    return found
