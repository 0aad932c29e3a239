"""Training runs in the object store: `training/<training_run_id>/`, the manifest written last."""

from __future__ import annotations

import re
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.bundle import MANIFEST
from trendflow.storage.object_store import ObjectStore

STORE_PREFIX = "training"

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def fetch_run(store: ObjectStore, run_id: str, parent: Path) -> Path:
    """Copy a run to `parent/<run_id>`, unless it is there, and return that folder.

    Raises `weights_missing` when the store holds no whole run of that name.
    """
    prefix, folder = f"{STORE_PREFIX}/{run_id}", parent / run_id
    named = _RUN_ID.fullmatch(run_id) is not None
    if named and (folder / MANIFEST).is_file():
        return folder
    if not named or not store.exists(f"{prefix}/{MANIFEST}"):
        raise TrendFlowError(
            "weights_missing",
            f"There is no training run {run_id!r}, neither as a folder nor in the store.",
            name=run_id,
        )
    # A folder without its manifest is a copy that was interrupted, and is made again.
    keys = sorted((info.key for info in store.list(prefix)), key=lambda key: key == f"{prefix}/{MANIFEST}")
    for key in keys:
        store.get_file(key, folder / key.removeprefix(f"{prefix}/"))
    return folder
