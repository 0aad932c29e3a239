"""What a dataset was built from and by, as one hash.

Equal fingerprints mean equal tables and reports, but for `created_at`. The bytes of Parquet files may differ: they
depend on the library that wrote them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple
from typing import Any

from trendflow.contracts.canonical import digest_of
from trendflow.dataset.parquet import table_digest
from trendflow.dataset.snapshots.tables import SnapshotSet
from trendflow.dataset.table.enrichment import Enrichment
from trendflow.dataset.table.feature_spec import FeatureSpec
from trendflow.dataset.table.selection import Refusal
from trendflow.dataset.table.synthetic import labelled
from trendflow.dataset.targets import Targets

TABLE_VERSION = "dataset_table_v2"
"""Version of the form of a dataset's tables. What computes their values is told by `program.builder_digest`."""

RowKey = tuple[str, str, str | None, str | None]
"""platform_id, video_id, run_id and content_digest of its feature vector; the last two are None without content."""


def dataset_fingerprint(
    rows: Iterable[RowKey],
    snapshots: SnapshotSet,
    targets: Targets,
    enrichment: Enrichment,
    spec: FeatureSpec,
    versions: Mapping[str, Any],
    refused: Iterable[Refusal],
) -> str:
    """sha256 over the rows, the digests of all input tables, the feature spec and the versions of everything.

    Refusals and the report of the import are inputs like the rows: they say which runs, tombstones and records were
    looked at, and both stand in the dataset. Otherwise one that names a video would outlive that video's deletion.
    """
    return digest_of(
        {
            "rows": [list(row) for row in sorted(rows, key=lambda row: tuple(part or "" for part in row))],
            "snapshots": {
                "snapshots_v1": table_digest(snapshots.snapshots),
                "videos_v1": table_digest(snapshots.videos),
                "channels_v1": table_digest(enrichment.table),
            },
            "import_report": snapshots.report.as_dict(),
            "refused": [list(astuple(refusal)) for refusal in sorted(refused)],
            "targets": table_digest(targets.table),
            "feature_spec_hash": spec.hash,
            "versions": {**versions, "dataset_table": TABLE_VERSION},
        }
    )


def dataset_version(fingerprint: str, synthetic: bool) -> str:
    """Name of a dataset, and of its folder."""
    return labelled(f"ds-{fingerprint[:16]}", synthetic)
