"""Small corpora with known values: a snapshot file of form D, and runs whose manifests can be amended."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trendflow.contracts.schema import SchemaRegistry
from trendflow.dataset.snapshots.importer import import_snapshots
from trendflow.dataset.snapshots.tables import SnapshotSet
from trendflow.dataset.table.build import BuildOptions, BuiltDataset, build_dataset
from trendflow.dataset.table.contents import ContentSource
from trendflow.dataset.table.enrichment import Enrichment
from trendflow.dataset.table.feature_spec import FeatureSpec
from trendflow.dataset.table.files import TABLE_FILE, dataset_files
from trendflow.dataset.targets import build_targets
from trendflow.storage.result_store import ResultStore
from trendflow_tests.dataset.synthetic import COMPONENT

SCHEMAS = SchemaRegistry.load()
SPEC = FeatureSpec.load()
CONFIG = "c" * 64
REQUIRED = (COMPONENT, "feature_vector")
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAYS = (0, 7, 14, 21)


def video(number: int) -> str:
    return f"test-video-{number:04d}"


def snapshot_rows(number: int, **changes: Any) -> list[dict[str, Any]]:
    """Four snapshots of a video, first seen `number` hours after START, 25 h old, growing by 100 views a day."""
    first = START + timedelta(hours=number)
    static = {
        "video_id": video(number),
        "publish_time": first - timedelta(hours=25),
        "channel_id": f"channel-{number // 2}",
        "channel_title": None,
        "category_id": "22",
        "title": f"Is this video number {number}?",
        "tags": ["a", "b"],
        "duration_s": 60.0 + number,
        "channel_subscribers": 1000.0,
        "channel_views": 50_000.0,
        "channel_videos": 12.0,
        "language": "en",
        "definition": "hd",
        "caption": "false",
        "source": "test",
        **changes,
    }
    return [
        {
            **static,
            "snapshot_time": first + timedelta(days=days),
            "views": 1000.0 + 10 * number + 100 * days * (number % 7 + 1),
            "likes": 50.0 + number + days * (number % 5),
            "comments": 5.0,
        }
        for days in DAYS
    ]


def snapshots(folder: Path, rows: list[dict[str, Any]]) -> SnapshotSet:
    path = folder / "test_snapshots.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return import_snapshots([path])


def corpus_snapshots(folder: Path, numbers: Collection[int]) -> SnapshotSet:
    return snapshots(folder, [row for number in numbers for row in snapshot_rows(number)])


def build(
    found: SnapshotSet,
    results: ResultStore | None = None,
    spec: FeatureSpec = SPEC,
    *,
    config_hash: str = CONFIG,
    readers: int = 2,
    required: Collection[str] = REQUIRED,
    enrichment: Enrichment | None = None,
    **options: Any,
) -> BuiltDataset:
    """A build with the runs of `results`, of metadata alone without."""
    source = None if results is None else ContentSource(results, config_hash, required, readers)
    return build_dataset(
        found,
        build_targets(found),
        spec if results is not None else spec.without_content(),
        source,
        enrichment=enrichment,
        options=BuildOptions(**options),
    )


def table_sha256(built: BuiltDataset) -> str:
    return hashlib.sha256(dataset_files(built, SCHEMAS)[TABLE_FILE]).hexdigest()


def amend(results: ResultStore, run_path: str, component: str, **changes: Any) -> None:
    """Change fields of one component's manifest row, or of the run itself when `component` is `run`."""

    def change(manifest: dict[str, Any]) -> dict[str, Any]:
        if component == "run":
            return {**manifest, "run": {**manifest["run"], **changes}}
        rows = [{**row, **changes} if row["name"] == component else row for row in manifest["components"]]
        return {**manifest, "components": rows}

    results.update_manifest(run_path, change)
