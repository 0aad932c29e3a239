"""Partitions and event history of runs that the store no longer has."""

from collections.abc import Iterable, Iterator

from dagster import DagsterInstance, RunsFilter
from dagster._core.storage.tags import PARTITION_NAME_TAG

from trendflow.orchestration.history_traces import forget_last_results, forget_launches, forget_run
from trendflow.orchestration.partitions import VIDEO_RUNS
from trendflow.orchestration.runs import request_key, run_path_of
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore


class DagsterHistory:
    """The history of videos in a Dagster instance, for erasure (`trendflow.retention.traces.History`)."""

    def __init__(self, instance: DagsterInstance) -> None:
        self._instance = instance

    def count(self, platform_id: str, video_id: str) -> int:
        """Partitions of the video and runs of them."""
        keys = self._keys(video_id)
        return len(keys) + sum(len(_runs(self._instance, key)) for key in keys)

    def forget(self, platform_id: str, video_id: str) -> None:
        keys = self._keys(video_id)
        runs = [run_id for key in keys for run_id, _ in _runs(self._instance, key)]
        prefix = f"{video_id}/"
        forget_launches(self._instance, [prefix, *(key.removeprefix(prefix) for key in keys), *runs])
        for key in keys:
            purge(self._instance, key)
        forget_last_results(self._instance, [prefix, *runs])

    def _keys(self, video_id: str) -> list[str]:
        return [key for key in self._instance.get_dynamic_partitions(VIDEO_RUNS) if key.startswith(f"{video_id}/")]


def purge(instance: DagsterInstance, partition_key: str) -> bool:
    """Remove the runs of a partition with their events, then the partition.

    False when one of them has not ended: its process would write events of a run nobody knows. The partition then
    stays, so that the next time finds it.
    """
    runs = _runs(instance, partition_key)
    for run_id, finished in runs:
        if finished:
            forget_run(instance, run_id)
            instance.delete_run(run_id)
    if not all(finished for _, finished in runs):
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
        if not stored and all(finished for _, finished in _runs(instance, key)):
            yield key


def _runs(instance: DagsterInstance, partition_key: str) -> list[tuple[str, bool]]:
    """Run id, and whether the run ended, of every run of a partition."""
    found = instance.get_runs(RunsFilter(tags={PARTITION_NAME_TAG: partition_key}))
    return [(run.run_id, run.is_finished) for run in found]
