"""What the stored tables hold, as the files of `stored_tables` and back."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trendflow.dataset.parquet import parquet_bytes
from trendflow.dataset.snapshots.tables import KEY, SnapshotSet
from trendflow.dataset.table.enrichment import CHANNELS_V1, Enrichment
from trendflow.dataset.targets import TargetPolicy, Targets, build_targets

_TARGETS_FILE, _REPORT_FILE, _CHANNELS_FILE = "targets.parquet", "target_report.json", "channels.parquet"


def snapshot_files(found: SnapshotSet) -> dict[str, bytes]:
    """Errors as `SnapshotSet.write`."""
    with tempfile.TemporaryDirectory() as name:
        found.write(Path(name))
        return {path.name: path.read_bytes() for path in sorted(Path(name).iterdir())}


def snapshots_of(files: Mapping[str, bytes]) -> SnapshotSet:
    """Errors as `SnapshotSet.read`."""
    with tempfile.TemporaryDirectory() as name:
        for file, data in files.items():
            (Path(name) / file).write_bytes(data)
        return SnapshotSet.read(Path(name))


def target_files(made: Targets) -> dict[str, bytes]:
    return {
        _TARGETS_FILE: parquet_bytes(made.table),
        _REPORT_FILE: json.dumps(made.report, allow_nan=False, sort_keys=True).encode(),
    }


def target_policy_of(files: Mapping[str, bytes]) -> TargetPolicy:
    """The rules the stored targets were made by."""
    return TargetPolicy.from_mapping(json.loads(files[_REPORT_FILE])["policy"])


def target_table_of(files: Mapping[str, bytes]) -> pa.Table:
    """One row per video, also of videos deleted since."""
    return pq.read_table(io.BytesIO(files[_TARGETS_FILE]))


def targets_of(files: Mapping[str, bytes], snapshots: SnapshotSet) -> Targets:
    """The stored targets, which are those of `snapshots`."""
    table = target_table_of(files)
    if all(table[key].equals(snapshots.videos[key]) for key in KEY):
        return Targets(table, json.loads(files[_REPORT_FILE]))
    # They are of these snapshots before other videos were deleted, and the report names videos as well.
    return build_targets(snapshots, target_policy_of(files))


def enrichment_files(found: Enrichment) -> dict[str, bytes]:
    return {_CHANNELS_FILE: found.to_parquet()}


def enrichment_of(files: Mapping[str, bytes]) -> Enrichment:
    return Enrichment(pq.read_table(io.BytesIO(files[_CHANNELS_FILE])).cast(CHANNELS_V1))
