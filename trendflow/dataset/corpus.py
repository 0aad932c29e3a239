"""Which runs speak for a corpus, from their manifests alone.

One row per video: reruns of one video must not pass for diversity. Runs of another configuration are counted and set
aside, because their columns may share a name and mean something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import partition_key_of
from trendflow.contracts.manifest import Manifest, find_row, run_status
from trendflow.storage.result_store import ResultStore

VECTOR = "feature_vector"
THREADS = 8
"""Concurrent reads. They wait for a store, not for a core."""

_SLICE = 256  # results held at once, however many runs there are

T = TypeVar("T")
R = TypeVar("R")

Configuration = tuple[str, str]
"""config_hash and sampling_policy_version."""


@dataclass(frozen=True)
class Outcome:
    """What became of one component in one run. `version`: producer_version, schema_version, model_signature."""

    status: str
    empty_reason: str | None
    error_code: str | None
    cache_hit: bool
    shortfall: bool
    version: tuple[str, str, str]


@dataclass(frozen=True)
class RunRecord:
    """One finished run. `vector_digest` is the content digest of its feature vector, None when it has none."""

    run_path: str
    created_at: str
    successful: bool
    configuration: Configuration
    source_sha256: str | None
    has_document: bool
    outcomes: Mapping[str, Outcome]
    skipped: Collection[str]
    vector_digest: str | None

    @property
    def video(self) -> str:
        return self.run_path.rpartition("/")[0]

    @property
    def key(self) -> str:
        """The partition key, as commands take it."""
        return partition_key_of(self.run_path)


@dataclass(frozen=True)
class Corpus:
    """The runs of one profile, sorted into what they are good for.

    `latest` holds the newest finished run of every video, successful or not; `rows` the newest successful one of the
    configuration in which most videos have one; `repeats` that one with the successful run before it. `set_aside`
    counts, per other configuration, the videos that have a vector of that one only. `unreadable` names videos whose
    manifests could not be read.
    """

    profile: str
    configuration: Configuration | None
    n_runs: int
    latest: tuple[RunRecord, ...]
    rows: tuple[RunRecord, ...]
    repeats: tuple[tuple[RunRecord, RunRecord], ...]
    set_aside: Mapping[Configuration, int]
    unreadable: tuple[str, ...]


def in_threads(work: Callable[[T], R], items: Iterable[T], threads: int = THREADS) -> Iterator[R]:
    """`work` of every item, in order, with a bounded number of results waiting."""
    pending = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(pending, _SLICE)):
            yield from pool.map(work, batch)


def find_corpus(
    results: ResultStore,
    profile: str,
    required: Collection[str],
    run_paths: Sequence[str] | None = None,
    *,
    tombstones: Container[tuple[str, str]] = frozenset(),
) -> Corpus:
    """The finished runs of `profile` in the store, or those among `run_paths`.

    A video of `tombstones` was deleted: what is left of it counts as not being there.
    `required` names the components whose failure fails a run. A video with a broken manifest is listed as unreadable;
    a named run that is broken raises what `read_manifest` raises, one that does not exist `dependency_missing`. Raises
    `storage_unavailable`.
    """

    def of_video(video: tuple[str, str]) -> tuple[list[RunRecord], list[str]]:
        try:
            found = list(results.manifests(*video))
        except TrendFlowError as error:
            if error.error_class == "transient":
                raise
            return [], ["/".join(video)]
        return _records(found, profile, required), []

    def of_run(run_path: str) -> tuple[list[RunRecord], list[str]]:
        platform_id, video_id, _ = run_path.split("/")
        manifest = None if (platform_id, video_id) in tombstones else results.read_manifest(run_path)
        if manifest is None:
            key = partition_key_of(run_path)  # as it was asked for
            raise TrendFlowError("dependency_missing", f"The store holds no run {key}.", kind="manifest")
        return _records([manifest], profile, required), []

    by_video: dict[str, list[RunRecord]] = {}
    unreadable: list[str] = []
    if run_paths is None:
        every = in_threads(of_video, (video for video in results.videos() if video not in tombstones))
    else:
        every = in_threads(of_run, sorted(set(run_paths)))
    for records, broken in every:
        unreadable += broken
        for record in records:
            by_video.setdefault(record.video, []).append(record)
    return _sorted_out(profile, list(by_video.values()), unreadable)


def _records(manifests: Iterable[Manifest], profile: str, required: Collection[str]) -> list[RunRecord]:
    return [
        _record(manifest, required)
        for manifest in manifests
        if manifest["run"]["profile"] == profile and manifest["run"]["finished_at"] is not None
    ]


def _record(manifest: Manifest, required: Collection[str]) -> RunRecord:
    block = manifest["run"]
    vector = find_row(manifest, VECTOR)
    return RunRecord(
        run_path="/".join(block[key] for key in ("platform_id", "video_id", "run_id")),
        created_at=block["created_at"],
        successful=run_status(manifest, required) == "success",
        configuration=(block["config_hash"], block["sampling_policy_version"]),
        source_sha256=block["source"].get("sha256"),
        has_document=block["document_digest"] is not None,
        outcomes={
            row["name"]: Outcome(
                status=row["status"],
                empty_reason=row["empty_reason"],
                error_code=row["error_code"],
                cache_hit=row["cache_hit"],
                shortfall="sampling_shortfall" in row["warnings"],
                version=(row["producer_version"], row["schema_version"], row["model_signature"]),
            )
            for row in manifest["components"]
        },
        skipped=frozenset(entry["name"] for entry in block["skipped"]),
        vector_digest=vector["artifacts"][0]["content_digest"] if vector and vector["status"] == "ok" else None,
    )


def _sorted_out(profile: str, videos: list[list[RunRecord]], unreadable: list[str]) -> Corpus:
    newest_first = [sorted(runs, key=lambda run: (run.created_at, run.run_path), reverse=True) for runs in videos]
    usable = [[run for run in runs if run.successful and run.vector_digest is not None] for runs in newest_first]
    configuration = _prevailing(usable)
    rows: list[RunRecord] = []
    repeats: list[tuple[RunRecord, RunRecord]] = []
    set_aside: Counter[Configuration] = Counter()
    for runs in usable:
        fitting = [run for run in runs if run.configuration == configuration]
        if fitting:
            rows.append(fitting[0])
            repeats += [(fitting[0], other) for other in fitting[1:2]]
        elif runs:
            set_aside[runs[0].configuration] += 1
    return Corpus(
        profile=profile,
        configuration=configuration,
        n_runs=sum(len(runs) for runs in videos),
        latest=tuple(sorted((runs[0] for runs in newest_first if runs), key=lambda run: run.run_path)),
        rows=tuple(sorted(rows, key=lambda run: run.run_path)),
        repeats=tuple(repeats),
        set_aside=dict(set_aside),
        unreadable=tuple(unreadable),
    )


def _prevailing(videos: list[list[RunRecord]]) -> Configuration | None:
    """The configuration in which most videos have a vector; of equally many, the one used last."""
    counts = Counter(found for runs in videos for found in {run.configuration for run in runs})
    last: dict[Configuration, str] = {}
    for run in (run for runs in videos for run in runs):
        last[run.configuration] = max(run.created_at, last.get(run.configuration, ""))
    return max(counts, key=lambda found: (counts[found], last[found]), default=None)
