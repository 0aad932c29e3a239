"""From snapshots to a dataset, one function per asset; without Dagster, whose import takes seconds.

Whatever an asset makes is stored as the current version of its table (`dataset.stored_tables`), and the next asset
takes it from there. Commands that work on files call `build` alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from trendflow.contracts.errors import TrendFlowError
from trendflow.dataset.collector.quota import utc_clock
from trendflow.dataset.collector.schedule import SchedulePolicy, counts, schedule
from trendflow.dataset.collector.snapshot_store import SnapshotStore
from trendflow.dataset.program import importer_digest, targets_digest
from trendflow.dataset.snapshots.importer import READERS, add_files
from trendflow.dataset.snapshots.observations import Observations
from trendflow.dataset.snapshots.tables import SnapshotSet
from trendflow.dataset.stored_contents import (
    enrichment_files,
    enrichment_of,
    snapshot_files,
    snapshots_of,
    target_files,
    targets_of,
)
from trendflow.dataset.stored_tables import CHANNELS, DATASET, SNAPSHOTS, TARGETS, StoredTable, TableStore
from trendflow.dataset.table.build import BuildOptions, BuiltDataset, build_dataset
from trendflow.dataset.table.contents import ContentSource, Progress, silent
from trendflow.dataset.table.enrichment import CHANNELS_V1, Enrichment, look_up_channels, without_statistics
from trendflow.dataset.table.feature_spec import FeatureSpec
from trendflow.dataset.table.files import fetch_dataset, store_dataset, write_dataset
from trendflow.dataset.table.reader import Dataset
from trendflow.dataset.targets import TargetPolicy, Targets, build_targets
from trendflow.orchestration.deleted import tombstones
from trendflow.orchestration.deployment import Deployment

if TYPE_CHECKING:
    from trendflow.dataset.collector.collect import CollectReport

_READERS = 8
_NO_KEY = "No key of the YouTube Data API is configured; set TRENDFLOW_YOUTUBE_API_KEY."


@dataclass(frozen=True)
class BuildRequest:
    """What a build is asked for; unset parts are those of the deployment. See `trendflow dataset build --help`."""

    profile: str | None = None
    config_hash: str | None = None
    metadata_only: bool = False
    spec: Path | None = None
    readers: int = _READERS
    allow_mixed: bool = False
    synthetic: bool = False

    def require_consistent(self) -> None:
        """Raise `config_invalid` for a request that contradicts itself."""
        if self.metadata_only and (self.config_hash or self.profile):
            raise TrendFlowError("config_invalid", "A dataset of metadata alone takes no profile and no configuration.")


@dataclass(frozen=True)
class Looked:
    """A table of channels and how it came about. `unasked` says why the platform was not asked, where it was not.

    `lacking`: how many videos, and how many first snapshots, it was to help.
    """

    enrichment: Enrichment
    lacking: Mapping[str, int]
    unasked: str | None = None


def snapshot_store(deployment: Deployment) -> SnapshotStore:
    """What the collector tracks and took."""
    return SnapshotStore(deployment.store, tombstones(deployment))


def collect_due(deployment: Deployment, policy: SchedulePolicy) -> CollectReport:
    """One run of the collector. Raises `config_invalid` without a key, and what the collector raises."""
    # The client library takes as long to import as everything else here; most processes never ask the platform.
    from trendflow.dataset.collector.access import open_client
    from trendflow.dataset.collector.collect import collect

    return collect(snapshot_store(deployment), open_client(deployment.settings, deployment.store), policy)


def nothing_to_collect(deployment: Deployment, policy: SchedulePolicy) -> str | None:
    """Why a run of the collector would be in vain now; None when a snapshot is due, or missed and not noted."""
    if deployment.settings.youtube_api_key is None:
        return _NO_KEY
    open_ones = snapshot_store(deployment).unfinished(policy.horizons_days)
    if not open_ones:
        return "No video is followed, or all are answered; register some with: trendflow snapshots track VIDEO_ID"
    found = counts(schedule(open_ones, utc_clock(), policy))
    return None if found["due"] or found["missed"] else f"No snapshot is due; {found['waiting']} come later."


def configured_files(deployment: Deployment) -> list[Path]:
    """Snapshot files of the folder that TRENDFLOW_SNAPSHOT_FOLDER names, sorted; none where it is not set.

    Raises `config_invalid` when the folder is not there.
    """
    folder = deployment.settings.snapshot_folder
    if folder is None:
        return []
    if not folder.is_dir():
        raise TrendFlowError("config_invalid", "TRENDFLOW_SNAPSHOT_FOLDER names no folder.")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in READERS)


def nothing_to_import(deployment: Deployment) -> str | None:
    """Why there are no snapshots to make a dataset of; None when there are."""
    if deployment.settings.snapshot_folder is None and not _collected(deployment):
        return "No snapshots are configured: set TRENDFLOW_SNAPSHOT_FOLDER, or collect some."
    if not configured_files(deployment) and not _collected(deployment):
        return "The folder that TRENDFLOW_SNAPSHOT_FOLDER names holds no snapshot file, and none were collected."
    return None


def store_snapshots(deployment: Deployment, files: Iterable[Path], collected: bool) -> tuple[StoredTable, SnapshotSet]:
    """Import files, and what the collector took, as the current snapshots; deleted videos stay out, also of files.

    Raises `dependency_missing` when there is nothing to import, what importing raises, and as `require_snapshots`.
    """
    chosen = list(files)
    with_collected = collected and _collected(deployment)
    if not chosen and not with_collected:
        raise TrendFlowError(
            "dependency_missing", nothing_to_import(deployment) or "No snapshot file was named.", kind="snapshots"
        )
    into = Observations()
    add_files(chosen, into)
    if with_collected:
        snapshot_store(deployment).read_into(into)
    found = into.finish().without(tombstones(deployment))
    require_snapshots(found)
    facts = {"made_by": importer_digest()}
    return TableStore(deployment.store).put(SNAPSHOTS, snapshot_files(found), facts), found


def require_snapshots(found: SnapshotSet) -> None:
    """Raise `input_constraint_violated` for an import that left nothing, before it replaces what is there."""
    if found.videos.num_rows:
        return
    cases = ", ".join(f"{count} × {rule}" for rule, count in sorted(found.report.counts.items()) if count)
    raise TrendFlowError(
        "input_constraint_violated",
        f"No snapshot was left to import ({cases or 'none was there'}); nothing was written.",
    )


def read_snapshots(deployment: Deployment) -> tuple[StoredTable, SnapshotSet]:
    """The current snapshots without videos deleted since. Raises `dependency_missing` when there are no snapshots."""
    stored, contents = TableStore(deployment.store).current(SNAPSHOTS)
    return stored, snapshots_of(contents).without(tombstones(deployment))


def store_targets(deployment: Deployment, policy: TargetPolicy) -> tuple[StoredTable, Targets]:
    """Targets of the current snapshots, as the current targets."""
    stored, snapshots = read_snapshots(deployment)
    made = build_targets(snapshots, policy)
    facts = {"made_from": stored.digest, "made_by": targets_digest()}
    return TableStore(deployment.store).put(TARGETS, target_files(made), facts), made


def store_channels(deployment: Deployment) -> tuple[StoredTable, Looked]:
    """Ask the platform for channels that the current snapshots lack, as the current table of channels.

    What was observed first stands: counters of today say nothing about the first snapshot of last month. Without a key
    nobody is asked, and what was answered before is kept.
    """
    tables = TableStore(deployment.store)
    made_from, snapshots = read_snapshots(deployment)
    found = read_channels(deployment)
    unasked = None if deployment.settings.youtube_api_key else _NO_KEY
    if unasked is None:
        from trendflow.dataset.collector.access import open_client
        from trendflow.dataset.collector.channels import ChannelLookup

        lookup = ChannelLookup(open_client(deployment.settings, deployment.store), deployment.store)
        found = _earliest(found, look_up_channels(snapshots, lookup))
    looked = Looked(found.without(tombstones(deployment)), _lacking(snapshots), unasked)
    return tables.put(CHANNELS, enrichment_files(looked.enrichment), {"made_from": made_from.digest}), looked


def read_channels(deployment: Deployment) -> Enrichment:
    """The current table of channels without deleted videos; an empty one where nobody looked any up."""
    tables = TableStore(deployment.store)
    if tables.find(CHANNELS) is None:
        return Enrichment.none()
    return enrichment_of(tables.current(CHANNELS)[1]).without(tombstones(deployment))


def build(
    deployment: Deployment,
    snapshots: SnapshotSet,
    enrichment: Enrichment | None,
    request: BuildRequest,
    progress: Progress = silent,
) -> BuiltDataset:
    """Build a dataset of imported snapshots and their targets, as if deleted videos had never been in them.

    The runs are those of this deployment. Errors as `build_dataset`, `config_invalid` for the request.
    """
    gone = tombstones(deployment)
    kept = snapshots.without(gone)
    known = None if enrichment is None else enrichment.without(gone)
    return _build(deployment, kept, build_targets(kept), known, request, progress)


def build_stored(deployment: Deployment, request: BuildRequest, progress: Progress = silent) -> BuiltDataset:
    """Build a dataset of the current snapshots, targets and channels, as if deleted videos had never been in them.

    Raises `artifact_validation_failed` when targets or channels are of other snapshots than the current ones, and when
    the program that imports, or the one that reckons targets, has changed since it made them.
    """
    tables = TableStore(deployment.store)
    stored, snapshots = read_snapshots(deployment)
    _require_made_by(stored, importer_digest())
    contents: dict[str, bytes] = {}
    for name in (TARGETS, CHANNELS):
        found, files = tables.current(name)
        if found.facts.get("made_from") != stored.digest:
            raise TrendFlowError(
                "artifact_validation_failed", f"The stored {name} are of other snapshots; make them again first."
            )
        if name == TARGETS:
            _require_made_by(found, targets_digest())
        contents |= files
    enrichment = enrichment_of(contents).without(tombstones(deployment))
    return _build(deployment, snapshots, targets_of(contents, snapshots), enrichment, request, progress)


def store_built(deployment: Deployment, built: BuiltDataset) -> StoredTable:
    """Keep a dataset in the store for good; the record makes it the current one once it is published."""
    with tempfile.TemporaryDirectory() as name:
        prefix = store_dataset(write_dataset(built, Path(name), deployment.schemas), deployment.store)
    facts = {"prefix": prefix, "fingerprint": built.metadata["dataset_fingerprint"]}
    return StoredTable(DATASET, facts=facts)


def publish_built(deployment: Deployment, stored: StoredTable) -> None:
    """Make a dataset of the store the current one: from here on training takes it."""
    TableStore(deployment.store).put(stored.name, facts=stored.facts)


def read_stored(deployment: Deployment, stored: StoredTable, folder: Path) -> Dataset:
    """The dataset of a record, copied into `folder` and verified."""
    return Dataset.read(fetch_dataset(deployment.store, stored.facts["prefix"], folder), deployment.schemas)


def _build(
    deployment: Deployment,
    snapshots: SnapshotSet,
    targets: Targets,
    enrichment: Enrichment | None,
    request: BuildRequest,
    progress: Progress,
) -> BuiltDataset:
    """`build` of inputs without deleted videos; of their runs some may still be there."""
    request.require_consistent()
    spec = FeatureSpec.load(request.spec)
    return build_dataset(
        snapshots,
        targets,
        spec.without_content() if request.metadata_only else spec,
        None if request.metadata_only else _source(deployment, request),
        enrichment=enrichment,
        options=BuildOptions(request.allow_mixed, request.synthetic, tombstones(deployment)),
        progress=progress,
    )


def _source(deployment: Deployment, request: BuildRequest) -> ContentSource:
    profile = request.profile or deployment.settings.profile
    components = deployment.graph.profile(profile).components
    required = [name for name, component in components.items() if component.required]
    config_hash = request.config_hash or deployment.registry.config_hash(profile)
    return ContentSource(deployment.results, config_hash, required, request.readers)


def _require_made_by(stored: StoredTable, program: str) -> None:
    if stored.facts.get("made_by") != program:
        raise TrendFlowError(
            "artifact_validation_failed",
            f"The stored {stored.name} were made before the program changed; make them again first.",
        )


def _collected(deployment: Deployment) -> bool:
    return snapshot_store(deployment).holds_any()


def _earliest(known: Enrichment, answered: Enrichment) -> Enrichment:
    """One row per video: the channel that is known, with the counters that were observed first."""
    rows = answered.rows()
    for key, before in known.rows().items():
        now = rows.get(key)
        if now is None or before["observed_at"] is not None:
            rows[key] = before
        elif now["channel_id"] is None:
            rows[key] = {**now, "channel_id": before["channel_id"]}
    return Enrichment(pa.Table.from_pylist([rows[key] for key in sorted(rows)], schema=CHANNELS_V1))


def _lacking(snapshots: SnapshotSet) -> dict[str, int]:
    named = pc.fill_null(pc.greater(pc.utf8_length(snapshots.videos["channel_id"]), 0), False)
    return {
        "videos_without_channel": int(pc.sum(pc.invert(named)).as_py() or 0),
        "videos_without_statistics": len(without_statistics(snapshots)),
    }
