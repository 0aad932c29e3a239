"""Which runs of videos stand on the dead-letter list, which itself knows Dagster's runs only."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from dagster import DagsterInstance, RunsFilter
from dagster._core.storage.tags import PARTITION_NAME_TAG

from trendflow.config import Settings
from trendflow.contracts.canonical import utc_text
from trendflow.orchestration.history import open_instance
from trendflow.orchestration.launch import typed_database
from trendflow.orchestration.queue.board import Board
from trendflow.orchestration.queue.celery_app import broker_url

_AT_ONCE = 500


def dead_letters(settings: Settings) -> list[dict[str, Any]]:
    """`run_key`, `error_code`, `deliveries` and `at` (UTC) of the runs that were given up, newest first.

    None without a broker. Raises `storage_unavailable` when broker or database do not answer.
    """
    if settings.broker_url is None:
        return []
    with closing(Board(broker_url(settings))) as board:
        letters = board.dead_letters()
    if not letters:
        return []
    with typed_database(), open_instance() as instance:
        keys = dict(_partitions(instance, [letter["run"] for letter in letters]))
    return [
        {
            "run_key": keys[letter["run"]],
            "error_code": letter["error_code"],
            "deliveries": letter["deliveries"],
            "at": _utc(letter["at"]),
        }
        for letter in letters
        if letter["run"] in keys  # the history of old runs is purged, and some runs are of no single video
    ]


def _partitions(instance: DagsterInstance, run_ids: list[str]) -> Iterator[tuple[str, str]]:
    for start in range(0, len(run_ids), _AT_ONCE):
        for run in instance.get_runs(RunsFilter(run_ids=run_ids[start : start + _AT_ONCE])):
            if PARTITION_NAME_TAG in run.tags:
                yield run.run_id, run.tags[PARTITION_NAME_TAG]


def _utc(seconds: float) -> str:
    return utc_text(datetime.fromtimestamp(seconds, UTC))
