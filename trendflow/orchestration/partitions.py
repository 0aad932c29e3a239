"""The one partition set: a key `<video_id>/<run_id>` per run."""

from __future__ import annotations

from collections.abc import Iterable

from dagster import DagsterInstance, DynamicPartitionsDefinition

VIDEO_RUNS = "video_runs"
video_runs = DynamicPartitionsDefinition(name=VIDEO_RUNS)

# SQLite limits the variables of one statement.
_CHUNK = 200


def add_partitions(instance: DagsterInstance, keys: Iterable[str]) -> None:
    """Add partition keys; adding one twice changes nothing."""
    pending = list(keys)
    for start in range(0, len(pending), _CHUNK):
        instance.add_dynamic_partitions(VIDEO_RUNS, pending[start : start + _CHUNK])
