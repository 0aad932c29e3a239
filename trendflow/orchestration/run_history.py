"""Partitions and event history of runs that the store no longer has."""

from collections.abc import Iterable, Iterator

from dagster import DagsterInstance, DagsterRun, RunsFilter
from dagster._core.storage.tags import PARTITION_NAME_TAG

from trendflow.orchestration.history_traces import (
    forget_last_results,
    forget_launches,
    forget_run,
    forget_statistics,
)
from trendflow.orchestration.partitions import VIDEO_RUNS
from trendflow.orchestration.runs import run_path_of
from trendflow.retention.traces import StillAtWork
from trendflow.state.layout import request_key
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore


class DagsterHistory:
    """The history of videos in a Dagster instance, for erasure (`trendflow.retention.traces.History`)."""

    def __init__(self, instance: DagsterInstance) -> None:
        self._instance = instance

    def count(self, platform_id: str, video_id: str) -> int:
        """Partitions of the video and runs of them."""
        known = sum(1 for key in self._instance.get_dynamic_partitions(VIDEO_RUNS) if key.startswith(f"{video_id}/"))
        return known + len(self.runs(video_id))

    def runs(self, video_id: str) -> list[DagsterRun]:
        """All runs of the video."""
        return [run for key in self._keys(video_id) for run in _runs(self._instance, key)]

    def forget(self, platform_id: str, video_id: str) -> None:
        keys, runs = self._keys(video_id), [run.run_id for run in self.runs(video_id)]
        prefix = f"{video_id}/"
        forget_launches(self._instance, [prefix, *(key.removeprefix(prefix) for key in keys), *runs])
        kept = [key for key in keys if not purge(self._instance, key)]
        if kept:
            raise StillAtWork.on_a_video()
        forget_last_results(self._instance, [prefix, *runs])
        forget_statistics(self._instance)

    def _keys(self, video_id: str) -> list[str]:
        """Partitions of the video, also one that was removed before its run came to be."""
        prefix = f"{video_id}/"
        known = {key for key in self._instance.get_dynamic_partitions(VIDEO_RUNS) if key.startswith(prefix)}
        tagged = self._instance.get_run_tags([PARTITION_NAME_TAG], value_prefix=prefix)
        # The prefix is a pattern there, in which `_` stands for any character.
        known.update(key for _, values in tagged for key in values if key.startswith(prefix))
        return sorted(known)


def purge(instance: DagsterInstance, partition_key: str) -> bool:
    """Remove the runs of a partition with their events, then the partition.

    False when one of them has not ended: its process would write events of a run nobody knows. The partition then
    stays, so that the next time finds it.
    """
    runs = _runs(instance, partition_key)
    for run in runs:
        if run.is_finished:
            forget_run(instance, run.run_id)
            instance.delete_run(run.run_id)
    if not all(run.is_finished for run in runs):
        return False
    instance.delete_dynamic_partition(VIDEO_RUNS, partition_key)
    return True


def stale_partitions(instance: DagsterInstance, store: ObjectStore) -> list[str]:
    """Partitions whose run has neither a manifest nor a request any more, and no run at work, sorted."""
    results = ResultStore(store)
    return sorted(_without_run(instance, store, results, instance.get_dynamic_partitions(VIDEO_RUNS)))


def _without_run(
    instance: DagsterInstance, store: ObjectStore, results: ResultStore, keys: Iterable[str]
) -> Iterator[str]:
    for key in keys:
        run_path = run_path_of(key)
        # The request is stored before anything else of a run, also before its partition.
        stored = store.exists(request_key(run_path)) or store.exists(f"{results.run_folder(run_path)}/manifest.json")
        if not stored and all(run.is_finished for run in _runs(instance, key)):
            yield key


def _runs(instance: DagsterInstance, partition_key: str) -> list[DagsterRun]:
    return list(instance.get_runs(RunsFilter(tags={PARTITION_NAME_TAG: partition_key})))
