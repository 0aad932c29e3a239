"""Building a dataset: who has a row, what each column of it says, what was left out and why, and proof of no leaks."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa

from trendflow.contracts.canonical import utc_now
from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.leakage import AUDIT_FILE, audit, require_clean
from trendflow.dataset.program import builder_digest, library_versions
from trendflow.dataset.snapshots.tables import SnapshotSet
from trendflow.dataset.snapshots.values import utc_time
from trendflow.dataset.table.columns import ROW_KEY, provenance_table
from trendflow.dataset.table.contents import Contents, ContentSource, Progress, read_contents, silent
from trendflow.dataset.table.description import Description, describe
from trendflow.dataset.table.eligible import Eligible, eligible_videos
from trendflow.dataset.table.enrichment import Enrichment
from trendflow.dataset.table.feature_spec import FeatureSpec
from trendflow.dataset.table.fingerprint import TABLE_VERSION, RowKey, dataset_fingerprint, dataset_version
from trendflow.dataset.table.first_sight import FirstSight, first_sight
from trendflow.dataset.table.rows import feature_rows
from trendflow.dataset.table.selection import Refusal, Video, told
from trendflow.dataset.table.synthetic import is_synthetic
from trendflow.dataset.targets import Targets


@dataclass(frozen=True)
class BuildOptions:
    """`allow_mixed` keeps rows of several releases: for analysis, training refuses such a dataset. `allow_synthetic`
    accepts invented inputs, and everything that is made of them says so. `tombstones` are the deleted videos.
    """

    allow_mixed: bool = False
    allow_synthetic: bool = False
    tombstones: Container[Video] = frozenset()


@dataclass(frozen=True)
class BuiltDataset:
    """A dataset in memory. `reports` are JSON documents by file name; `metadata` lacks what only the files know."""

    table: pa.Table
    provenance: pa.Table
    spec: FeatureSpec
    metadata: Mapping[str, Any]
    reports: Mapping[str, bytes] = field(repr=False)

    @property
    def version(self) -> str:
        return str(self.metadata["dataset_version"])


def build_dataset(
    snapshots: SnapshotSet,
    targets: Targets,
    spec: FeatureSpec,
    content: ContentSource | None = None,
    *,
    enrichment: Enrichment | None = None,
    options: BuildOptions | None = None,
    progress: Progress = silent,
) -> BuiltDataset:
    """One row per video of `snapshots`, with the run that speaks for it, or of metadata alone without `content`.

    Raises `dependency_missing` when no row is left, `input_constraint_violated` for invented inputs that were not
    asked for, `artifact_validation_failed` when the runs have no prevailing version, `config_invalid` for a spec that
    wants content where there is none, `leakage_violation` and `storage_unavailable`.
    """
    options, enrichment = options or BuildOptions(), enrichment or Enrichment.none()
    if spec.uses_content != (content is not None):
        raise TrendFlowError(
            "config_invalid", "A feature spec with components or embeddings needs runs, one without them takes none."
        )
    eligible, contents, refused = _gather(snapshots, spec, content, enrichment, options, progress)
    synthetic = _synthetic(snapshots, contents, options)
    sights = _sights(eligible, contents, enrichment, spec, progress)
    table, provenance = feature_rows(sights, None if contents is None else contents.rows, spec)
    table = _with_outcomes(table, eligible, contents, targets)
    verdict = audit(table, provenance, spec.leakage)
    require_clean(verdict)
    versions = _versions(content, contents, targets)
    fingerprint = dataset_fingerprint(
        _row_keys(eligible, contents),
        snapshots,
        targets,
        enrichment,
        spec,
        {**versions, "synthetic": synthetic},
        refused,
    )
    version = dataset_version(fingerprint, synthetic)
    marks = {
        "schema_version": TABLE_VERSION,
        "dataset_version": version,
        "dataset_fingerprint": fingerprint,
        "synthetic": str(synthetic).lower(),
        "mixed": str(versions["mixed"]).lower(),
    }
    described = Description(
        created_at=utc_now(),
        version=version,
        fingerprint=fingerprint,
        synthetic=synthetic,
        table=table,
        provenance=provenance,
        spec=spec,
        versions=versions,
        sights=sights,
        targets=targets,
        import_counts=snapshots.report.counts,
        refused=refused,
    )
    return BuiltDataset(
        table=table.replace_schema_metadata(marks),
        provenance=provenance_table(provenance, table).replace_schema_metadata(marks),
        spec=spec,
        metadata=describe(described),
        reports={
            "import_report.json": snapshots.report.to_json(),
            "target_report.json": _json(targets.report),
            AUDIT_FILE: _json(verdict.document()),
            "refused.json": _json([asdict(refusal) for refusal in sorted(refused)]),
        },
    )


def _gather(
    snapshots: SnapshotSet,
    spec: FeatureSpec,
    content: ContentSource | None,
    enrichment: Enrichment,
    options: BuildOptions,
    progress: Progress,
) -> tuple[Eligible, Contents | None, list[Refusal]]:
    """The videos that have a row and their runs, both in the order of the ids, and every video that has none."""
    eligible = eligible_videos(snapshots, enrichment, options.tombstones)
    refused = list(eligible.refused)
    if not eligible.keys:
        reasons = told(refused) or "the snapshots name none"
        raise TrendFlowError("dependency_missing", f"No video can have a row: {reasons}.", kind="snapshots")
    contents = None
    if content is not None:
        wanted = frozenset(eligible.keys)
        contents = read_contents(content, spec, wanted, allow_mixed=options.allow_mixed, progress=progress)
        judged = {refusal.video for refusal in refused}  # a video that has no row needs no second reason
        refused += [
            replace(refusal, reason="tombstoned", detail="") if refusal.video in options.tombstones else refusal
            for refusal in contents.refused
            if refusal.video not in judged
        ]
        eligible = eligible.take(frozenset(run.video for run in contents.runs))
    return eligible, contents, refused


def _synthetic(snapshots: SnapshotSet, contents: Contents | None, options: BuildOptions) -> bool:
    names = {
        name
        for table, column in (
            (snapshots.videos, "video_id"),
            (snapshots.videos, "source"),
            (snapshots.snapshots, "source"),
        )
        for name in table[column].unique().to_pylist()
    }
    found = is_synthetic(names) or is_synthetic(
        run.dataprocessor_version for run in (contents.runs if contents else ())
    )
    if found and not options.allow_synthetic:
        raise TrendFlowError(
            "input_constraint_violated",
            "The snapshots or runs are SYNTHETIC; a dataset of them is built on request only: "
            "--synthetic of the command, or synthetic: true in the configuration of the asset.",
        )
    return found


def _sights(
    eligible: Eligible, contents: Contents | None, enrichment: Enrichment, spec: FeatureSpec, progress: Progress
) -> list[FirstSight]:
    channels = enrichment.rows()
    runs = {run.video: run for run in contents.runs} if contents else {}
    sights = []
    for done, (key, video, first) in enumerate(eligible.rows(), start=1):
        run = runs.get(key)
        sights.append(
            first_sight(
                video,
                first,
                spec.leakage.tolerance_minutes,
                channel=channels.get(key),
                media_duration_seconds=run.duration_seconds if run else None,
                run_created_at=utc_time(run.created_at) if run else None,
            )
        )
        progress("rows", done, len(eligible.keys))
    return sights


def _with_outcomes(table: pa.Table, eligible: Eligible, contents: Contents | None, targets: Targets) -> pa.Table:
    """`table` with run ids, targets and masks; columns sorted by name."""
    columns = {name: table[name] for name in table.column_names}
    runs: list[str | None] = [run.run_id for run in contents.runs] if contents else [None] * table.num_rows
    columns["run_id"] = pa.array(runs, pa.string())
    place = {
        (row["platform_id"], row["video_id"]): at
        for at, row in enumerate(targets.table.select(list(ROW_KEY)).to_pylist())
    }
    missing = [key for key in eligible.keys if key not in place]
    if missing:
        raise TrendFlowError(
            "artifact_validation_failed", f"The targets are of other snapshots: {len(missing)} videos have none."
        )
    outcomes = targets.table.take([place[key] for key in eligible.keys])
    if not outcomes["t0"].combine_chunks().equals(table["t0"].combine_chunks()):
        raise TrendFlowError("artifact_validation_failed", "The targets count from other first snapshots.")
    columns |= {name: outcomes[name] for name in outcomes.column_names if name not in (*ROW_KEY, "t0")}
    return pa.table({name: columns[name] for name in sorted(columns)})


def _row_keys(eligible: Eligible, contents: Contents | None) -> list[RowKey]:
    if contents is None:
        return [(*key, None, None) for key in eligible.keys]
    return [(*run.video, run.run_id, run.vector_digest) for run in contents.runs]


def _versions(content: ContentSource | None, contents: Contents | None, targets: Targets) -> dict[str, Any]:
    """What computed the table and its inputs; with content, the versions that most runs have."""
    found: dict[str, Any] = {
        "builder_digest": builder_digest(),
        "library_versions": library_versions(),
        "config_hash": None,
        "feature_schema_version": None,
        "sampling_policy_version": None,
        "dataprocessor_versions": [],
        "producer_versions": {},
        "schema_versions": {},
        "model_signatures": {},
        "target_policy": targets.report["policy"],
        "mixed": False,
    }
    if content is None or contents is None:
        return found
    components = contents.versions.components
    return {
        **found,
        "config_hash": content.config_hash,
        "feature_schema_version": contents.versions.feature_schema_version,
        "sampling_policy_version": contents.versions.sampling_policy_version,
        "dataprocessor_versions": sorted({run.dataprocessor_version for run in contents.runs}),
        "producer_versions": {name: version.producer_version for name, version in components.items()},
        "schema_versions": {name: version.schema_version for name, version in components.items()},
        "model_signatures": {name: version.signature for name, version in components.items() if version.signature},
        "mixed": contents.mixed,
    }


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()
