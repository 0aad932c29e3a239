"""What was made of a video and outlives it: datasets that hold it and the models trained on these."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.parquet as pq

from trendflow.dataset.snapshots.tables import KEY
from trendflow.dataset.table.files import METADATA_FILE, STORE_ROOT, TABLE_FILE
from trendflow.retention.tables import Video, videos_of
from trendflow.storage.object_store import ObjectStore

TRAINING_ROOT, _TRAINING_MANIFEST = "training", "training_run_manifest.json"


def datasets_with(store: ObjectStore, video: Video) -> list[str]:
    """Versions of the stored datasets that have a row of the video, sorted."""
    return [version for version in store.folders(STORE_ROOT) if _holds(store, version, video)]


def models_of(store: ObjectStore, versions: Sequence[str]) -> list[dict[str, str]]:
    """`training_run_id` and `dataset_version` of the stored training runs on one of these datasets, by id."""
    return [found for found in _trained(store) if found["dataset_version"] in versions]


def _holds(store: ObjectStore, version: str, video: Video) -> bool:
    prefix = f"{STORE_ROOT}/{version}"
    if not store.exists(f"{prefix}/{METADATA_FILE}"):
        return False  # an interrupted copy is no dataset; it is removed by its age
    return video in set(videos_of(pq.read_table(io.BytesIO(store.get(f"{prefix}/{TABLE_FILE}")), columns=list(KEY))))


def _trained(store: ObjectStore) -> Iterator[dict[str, str]]:
    for run_id in store.folders(TRAINING_ROOT):
        key = f"{TRAINING_ROOT}/{run_id}/{_TRAINING_MANIFEST}"
        if store.exists(key):
            manifest: dict[str, Any] = json.loads(store.get(key))
            yield {"training_run_id": run_id, "dataset_version": manifest["dataset"]["dataset_version"]}
