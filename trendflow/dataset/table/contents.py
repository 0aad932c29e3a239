"""The feature vectors of a corpus: which runs count, whether they can be compared, and their columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.corpus import THREADS, in_threads
from trendflow.dataset.table.content_features import Content, ContentReader
from trendflow.dataset.table.feature_spec import FeatureSpec
from trendflow.dataset.table.mixing import Versions, prevailing_versions, refuse_mixed
from trendflow.dataset.table.rows import ContentRows, content_rows
from trendflow.dataset.table.selection import Refusal, RunChoice, Video, select_runs, told
from trendflow.storage.result_store import ResultStore

Progress = Callable[[str, int, int], None]
"""Hears of a phase, how many items of it are done, and how many there are."""


def silent(phase: str, done: int, total: int) -> None:
    """A progress that tells nobody."""


@dataclass(frozen=True)
class ContentSource:
    """Where the runs are and which of them count. `required`: components whose failure fails a run."""

    results: ResultStore
    config_hash: str
    required: Collection[str]
    readers: int = THREADS


@dataclass(frozen=True)
class Contents:
    """Runs with their rows, sorted by video, and what was refused. `mixed`: rows of several programs were kept."""

    runs: tuple[RunChoice, ...]
    rows: ContentRows
    versions: Versions
    refused: tuple[Refusal, ...]
    mixed: bool


def read_contents(
    source: ContentSource,
    spec: FeatureSpec,
    wanted: Collection[Video],
    *,
    allow_mixed: bool,
    progress: Progress,
) -> Contents:
    """The vectors of the newest successful run of every wanted video, read concurrently.

    At any time a bounded number of files is open and in memory; what stays is one float per run and column.
    Raises `dependency_missing` when no run can be used, `artifact_validation_failed` when no version prevails, and
    `storage_unavailable`.
    """
    seen = 0

    def advance(count: int) -> None:
        nonlocal seen
        seen += count
        progress("manifests", seen, len(wanted))

    found = select_runs(
        source.results, source.config_hash, source.required, wanted, readers=source.readers, advance=advance
    )
    refused = list(found.refused)
    tested = [run for run in found.runs if run.test_models]
    refused += [Refusal(*run.video, run.run_id, "test_weights", run.test_models[0]) for run in tested]
    runs = [run for run in found.runs if not run.test_models]
    if not runs:
        raise _nothing(refused, found.configurations)
    versions = prevailing_versions(runs, allow_mixed=allow_mixed)
    different = refuse_mixed(runs, versions)
    if not allow_mixed:
        refused += different
        runs = _without(runs, different)
    contents, unreadable = _read(source, spec, runs, progress)
    refused += unreadable
    runs = _without(runs, unreadable)
    strange = _refuse_layouts(runs, contents)
    if not allow_mixed:
        refused += strange
        odd = {refusal.video for refusal in strange}
        contents = [content for run, content in zip(runs, contents, strict=True) if run.video not in odd]
        runs = _without(runs, strange)
    if not runs:
        raise _nothing(refused, found.configurations)
    kinds = {name: version.kind for name, version in versions.components.items()}
    rows = content_rows(contents, spec, kinds)
    return Contents(tuple(runs), rows, versions, tuple(refused), allow_mixed and bool(different or strange))


def _read(
    source: ContentSource, spec: FeatureSpec, runs: Sequence[RunChoice], progress: Progress
) -> tuple[list[Content], list[Refusal]]:
    reader = ContentReader(source.results, spec.embeddings)

    def read(run: RunChoice) -> Content | None:
        try:
            return reader.read(run.run_path, run.vector_sha256)
        except TrendFlowError as error:  # one damaged file must not stop a build of thousands
            if error.error_class == "transient":
                raise
            return None

    contents: list[Content] = []
    unreadable: list[Refusal] = []
    for done, (run, content) in enumerate(zip(runs, in_threads(read, runs, source.readers), strict=True), start=1):
        progress("feature vectors", done, len(runs))
        if content is None:
            unreadable.append(Refusal(*run.video, run.run_id, "unreadable_vector"))
        else:
            contents.append(content)
    return contents, unreadable


def _refuse_layouts(runs: Sequence[RunChoice], contents: Sequence[Content]) -> list[Refusal]:
    """A refusal for every run whose vector has other columns, or other sources of them, than most have."""
    counts = Counter(content.layout for content in contents)
    if len(counts) <= 1:
        return []
    most = max(counts, key=lambda layout: (counts[layout], layout.names, layout.producer_versions))
    return [
        Refusal(*run.video, run.run_id, "mixed_feature_set")
        for run, content in zip(runs, contents, strict=True)
        if content.layout != most
    ]


def _without(runs: Sequence[RunChoice], refused: Sequence[Refusal]) -> list[RunChoice]:
    gone = {refusal.video for refusal in refused}
    return [run for run in runs if run.video not in gone]


def _nothing(refused: Sequence[Refusal], configurations: Mapping[str, int]) -> TrendFlowError:
    known = ", ".join(f"{found[:12]} ({count} videos)" for found, count in configurations.items())
    return TrendFlowError(
        "dependency_missing",
        f"No run can be used: {told(refused) or 'the store has no runs'}."
        f"{f' Successful runs are of the configurations {known}.' if known else ''}",
        kind="artifact",
        reasons=dict(Counter(refusal.reason for refusal in refused)),
    )
