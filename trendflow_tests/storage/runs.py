"""Builders of small, complete runs for the storage tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trendflow.contracts.artifact import Artifact
from trendflow.contracts.canonical import content_digest
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.manifest import Manifest, component_row_from_meta, new_manifest, upsert_row
from trendflow.contracts.meta import build_meta, error_meta
from trendflow.storage.result_store import ResultStore

CREATED_AT = "2026-01-01T00:00:00.000Z"
KIND = "core"


def make_identity(run_id: str = "run-1", video_id: str = "my-video") -> RunIdentity:
    return RunIdentity("upload", video_id, run_id, "a" * 64, "s1", "0.1.0")


def first_manifest(identity: RunIdentity, created_at: str = CREATED_AT) -> Manifest:
    return new_manifest(identity, created_at, "starter", {"type": "upload"})


def example_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "frame_indices": np.arange(6, dtype=np.int32),
        "embeddings": rng.normal(size=(6, 32)).astype(np.float32),
        "feature_names": np.array(["hue_mean", "überblendung"]),
        "feature_values": np.array([0.25, np.nan], dtype=np.float32),
    }


def meta_for(
    identity: RunIdentity,
    component: str,
    arrays: Mapping[str, np.ndarray],
    *,
    schema_version: str | None = None,
    error: TrendFlowError | None = None,
    key: str = "c" * 64,
    created_at: str = CREATED_AT,
) -> dict[str, Any]:
    schema = schema_version or f"{component}_npz_v1"
    where = {"producer": component, "producer_version": "1.0.0", "schema_version": schema}
    keys = {"idempotency_key": key, "input_digest": "d" * 64}
    if error is not None:
        return error_meta(identity, error, **where, **keys, created_at=created_at)
    digest = content_digest(component, schema, "ok", None, arrays)
    return build_meta(identity, Artifact(arrays), **where, **keys, content_digest=digest, created_at=created_at)


def store_component(
    results: ResultStore,
    identity: RunIdentity,
    component: str,
    arrays: Mapping[str, np.ndarray],
    *,
    error: TrendFlowError | None = None,
    second: int = 0,
) -> dict[str, Any]:
    """Artifact, then manifest row, as a pipeline does it; returns the row."""
    created_at = f"2026-01-01T00:00:{second:02d}.000Z"
    meta = meta_for(identity, component, arrays, error=error, created_at=created_at)
    entry = results.write_artifact(identity.run_path, component, component, arrays, meta)
    row = component_row_from_meta(
        meta, kind=KIND, artifacts=[entry], started_at=created_at, finished_at=created_at, duration_ms=1.0
    )
    results.update_manifest(identity.run_path, lambda manifest: upsert_row(manifest, row))
    return row
