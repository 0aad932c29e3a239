"""The stored tables without deleted videos."""

from __future__ import annotations

import io
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from trendflow.contracts.canonical import sha256_hex
from trendflow.dataset.program import targets_digest
from trendflow.dataset.snapshots.tables import KEY
from trendflow.dataset.stored_contents import (
    enrichment_files,
    enrichment_of,
    snapshot_files,
    snapshots_of,
    target_files,
    target_policy_of,
    target_table_of,
)
from trendflow.dataset.stored_tables import CHANNELS, ROOT, SNAPSHOTS, TARGETS, StoredTable, TableStore
from trendflow.dataset.targets import build_targets
from trendflow.storage.object_store import ObjectNotFound, ObjectStore

Video = tuple[str, str]


def rows_of(store: ObjectStore, video: Video) -> dict[str, int]:
    """How many rows of the stored snapshots and channels are about a video; tables without any are left out."""
    tables = TableStore(store)
    found: dict[str, int] = {}
    if tables.find(SNAPSHOTS) is not None:
        table = snapshots_of(tables.current(SNAPSHOTS)[1]).snapshots
        found[SNAPSHOTS] = sum(key == video for key in videos_of(table))
    if tables.find(CHANNELS) is not None:
        found[CHANNELS] = int(video in enrichment_of(tables.current(CHANNELS)[1]).rows())
    return {name: count for name, count in found.items() if count}


def remove_publications(store: ObjectStore, video: Video) -> None:
    """Remove publications that are not current and hold the video, also those of a writer who is about to publish.

    One superseded by a writer that died at once would otherwise keep its texts until its age removes it. A writer that
    read the video before it was deleted has to read again.
    """
    tables = TableStore(store)
    for name in (SNAPSHOTS, TARGETS, CHANNELS):
        current = tables.find(name)
        for folder in store.folders(f"{ROOT}/{name}"):
            prefix = f"{ROOT}/{name}/{folder}"
            if (current is None or folder != current.folder) and _names(store, prefix, video):
                store.delete_prefix(prefix)


def rebuild_tables(store: ObjectStore, deleted: Container[Video]) -> None:
    """Publish snapshots, targets and channels without the videos of `deleted`; what is current without them stays.

    Targets and channels come first, already as those of the snapshots to come, whose version follows from their
    contents. So this may stop anywhere and be repeated: while the snapshots are the old ones, the next attempt makes
    the same ones of them. Until the end readers find targets of other snapshots and refuse them.
    """
    tables = TableStore(store)
    if tables.find(SNAPSHOTS) is None:
        return
    before, files = tables.current(SNAPSHOTS)
    found = snapshots_of(files)
    kept = found.without(deleted)
    # The report counts videos that left and names some that have no row.
    changed = kept.report.as_dict() != found.report.as_dict()
    new_files = snapshot_files(kept) if changed else files
    after = replace(before, files={name: sha256_hex(data) for name, data in sorted(new_files.items())})
    successor = {before.digest: after.digest}
    if tables.find(CHANNELS) is not None:
        channels, contents = tables.current(CHANNELS)
        enrichment = enrichment_of(contents)
        if any(video in deleted for video in enrichment.rows()):
            contents = enrichment_files(enrichment.without(deleted))
        _publish(tables, channels, contents, successor)
    if tables.find(TARGETS) is not None:
        targets, contents = tables.current(TARGETS)
        facts: dict[str, str] = {}
        if any(video in deleted for video in videos_of(target_table_of(contents))):
            # The report lists falls by video, so it is made anew with the table.
            contents = target_files(build_targets(kept, target_policy_of(contents)))
            facts = {"made_by": targets_digest()}
        _publish(tables, targets, contents, successor, **facts)
    if changed:
        tables.put(SNAPSHOTS, new_files, before.facts)


def _publish(
    tables: TableStore, before: StoredTable, contents: Mapping[str, bytes], successor: Mapping[str, str], **facts: str
) -> None:
    """Publish what was made of snapshots as made of their successor, unless nothing changes by that."""
    made_from = before.facts["made_from"]
    stated = {**before.facts, "made_from": successor.get(made_from, made_from), **facts}
    files = {name: sha256_hex(data) for name, data in sorted(contents.items())}
    if (files, stated) != (before.files, before.facts):
        tables.put(before.name, contents, stated)


def videos_of(table: pa.Table) -> Iterator[Video]:
    """The video of each row."""
    return zip(*(table[key].to_pylist() for key in KEY), strict=True)


def _names(store: ObjectStore, prefix: str, video: Video) -> bool:
    for info in store.list(prefix):
        try:
            data = store.get(info.key)
        except ObjectNotFound:  # its writer removed it
            continue
        if video[1].encode() in data:
            return True
        if info.key.endswith(".parquet") and video in set(videos_of(pq.read_table(io.BytesIO(data)))):
            return True
    return False
