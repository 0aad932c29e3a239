"""SYNTHETIC runs: manifests and feature vectors exactly as real runs leave them, with invented values.

Only the feature vector of such a run is stored. Its manifest names the artifacts of the other components as well, like
that of a run of which everything else has been deleted, so `validate` objects to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from trendflow.components.base import ComponentInputs, VideoInfo
from trendflow.components.dataset import feature_vector
from trendflow.components.dataset._columns import EMBEDDINGS
from trendflow.components.registry import Registry
from trendflow.contracts.artifact import Artifact
from trendflow.contracts.canonical import content_digest, digest_of, utc_text
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.keys import model_signature
from trendflow.contracts.manifest import (
    BATCHING_FIELDS,
    Row,
    artifact_path,
    component_row_from_meta,
    find_row,
    new_manifest,
    update_run,
    upsert_row,
)
from trendflow.contracts.meta import build_meta
from trendflow.contracts.schema import SchemaRegistry
from trendflow.dataset.corpus import VECTOR, in_threads
from trendflow.dataset.simulation.videos import SyntheticVideo
from trendflow.dataset.table.build import silent
from trendflow.dataset.table.contents import Progress
from trendflow.dataset.table.synthetic import LABEL
from trendflow.storage.result_store import ResultStore

_QUALITY_COLUMNS = 12
"""So many columns move with the quality of a video; the others are noise."""
_EMBEDDING_WIDTH = 512
_RUN_ID = f"{LABEL}run"


@dataclass(frozen=True)
class Template:
    """What synthetic runs take over from a real run, or from a profile that never ran.

    `rows`: manifest rows of all components but the vector. `arrays`: the members of the vector; their values are the
    centre around which others are drawn, NaN meaning 0. `meta` holds what tells the vector's version.
    """

    profile: str
    config_hash: str
    sampling_policy_version: str
    dataprocessor_version: str
    rows: tuple[Row, ...]
    arrays: Mapping[str, np.ndarray]
    producer_version: str
    schema_version: str
    missing_stay_missing: bool


def template_of_run(results: ResultStore, run_path: str) -> Template:
    """Synthetic runs that a dataset cannot tell from this real one by version, model or configuration.

    Raises `dependency_missing` without such a run or its feature vector.
    """
    manifest = results.read_manifest(run_path)
    row = find_row(manifest, VECTOR) if manifest else None
    if manifest is None or row is None or row["status"] != "ok":
        raise TrendFlowError("dependency_missing", "There is no run with a feature vector to imitate.", kind="artifact")
    block = manifest["run"]
    stored = results.read_artifact(run_path, VECTOR, expected_sha256=row["artifacts"][0]["sha256"])
    return Template(
        profile=block["profile"],
        config_hash=block["config_hash"],
        sampling_policy_version=block["sampling_policy_version"],
        dataprocessor_version=block["dataprocessor_version"],
        rows=tuple(other for other in manifest["components"] if other["name"] != VECTOR),
        arrays=stored.arrays,
        producer_version=row["producer_version"],
        schema_version=row["schema_version"],
        missing_stay_missing=True,
    )


def template_of_profile(
    registry: Registry, profile: str, schemas: SchemaRegistry, dataprocessor_version: str
) -> Template:
    """Synthetic runs with the columns and versions of a profile, as if its models had no weights.

    Raises `config_invalid` for a profile that does not exist or has no feature vector.
    """
    found = registry.graph.profile(profile)
    if VECTOR not in found.components:
        raise TrendFlowError("config_invalid", f"The profile {profile!r} computes no feature vector.")
    declarations = registry.declarations(profile, VECTOR, schemas)
    nothing = VideoInfo(duration_sec=1.0, analysis_width=1, analysis_height=1, analysis_fps=1.0, source_fps=1.0)
    empty = feature_vector.run(ComponentInputs(video=nothing, upstream={}, declarations=declarations))
    widths = {name: component for name, (component, _) in EMBEDDINGS.items() if component in declarations}
    embeddings = {name: np.zeros(_EMBEDDING_WIDTH, dtype=np.float32) for name in widths}
    names = [name for name in found.components if name != VECTOR]
    return Template(
        profile=profile,
        config_hash=registry.config_hash(profile),
        sampling_policy_version=found.sampling_policy_version,
        dataprocessor_version=dataprocessor_version,
        rows=tuple(_declared_row(registry, name) for name in names),
        arrays={**empty.arrays, **embeddings},
        producer_version=feature_vector.SPEC.producer_version,
        schema_version=feature_vector.SPEC.schema_version,
        missing_stay_missing=False,
    )


def store_runs(
    results: ResultStore,
    template: Template,
    videos: Sequence[SyntheticVideo],
    *,
    seed: int = 0,
    threads: int = 4,
    progress: Progress = silent,
) -> list[str]:
    """Store one run per video and return their paths; a run that is there already stays as it is."""
    paths = []
    for path in in_threads(lambda video: _store(results, template, video, seed), videos, threads):
        paths.append(path)
        progress("invented runs", len(paths), len(videos))
    return paths


def _store(results: ResultStore, template: Template, video: SyntheticVideo, seed: int) -> str:
    release = template.dataprocessor_version.removeprefix(LABEL)
    identity = RunIdentity(
        platform_id="upload",
        video_id=video.video_id,
        run_id=_RUN_ID,
        config_hash=template.config_hash,
        sampling_policy_version=template.sampling_policy_version,
        dataprocessor_version=f"{LABEL}{release}",
    )
    created = _utc(video, 1)
    arrays = _values(template, video, np.random.default_rng([seed, 3, video.number]))
    meta = build_meta(
        identity,
        Artifact(arrays, stage_timings_ms={"gather": 1.0}),
        producer=VECTOR,
        producer_version=template.producer_version,
        schema_version=template.schema_version,
        idempotency_key=digest_of(video.video_id),
        input_digest=digest_of([video.video_id, seed]),
        content_digest=content_digest(VECTOR, template.schema_version, "ok", None, arrays),
        created_at=created,
    )
    artifact = results.write_artifact(identity.run_path, VECTOR, VECTOR, arrays, meta)
    times: dict[str, Any] = {"started_at": created, "finished_at": created, "duration_ms": 1.0}
    row = component_row_from_meta(meta, kind="dataset", artifacts=[artifact], **times)
    source = {"type": "upload", "sha256": digest_of(video.video_id), "duration_sec": video.duration_seconds}
    manifest = new_manifest(identity, created, template.profile, source)
    manifest = upsert_row({**manifest, "components": list(template.rows)}, row)
    results.create_manifest(update_run(manifest, finished_at=_utc(video, 2)))
    return identity.run_path


def _values(template: Template, video: SyntheticVideo, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The members of a vector: what the template says of columns, and values drawn around its own."""
    centre = template.arrays["feature_values"].astype(np.float64)
    known = np.isfinite(centre)
    centre = np.where(known, centre, 0.0)
    shift = rng.normal(size=len(centre))
    shift[np.flatnonzero(known | (not template.missing_stay_missing))[:_QUALITY_COLUMNS]] += video.quality
    values = centre + np.maximum(0.3 * np.abs(centre), 0.1) * shift
    if template.missing_stay_missing:
        values[~known] = np.nan
    drawn = {
        name: (array + rng.normal(scale=0.05, size=array.shape)).astype(np.float32)
        for name, array in template.arrays.items()
        if name in EMBEDDINGS
    }
    filled = values.astype(np.float32)
    return {**template.arrays, **drawn, "feature_values": filled, "feature_present_mask": np.isfinite(filled)}


def _declared_row(registry: Registry, name: str) -> Row:
    """The manifest row of a component of which nothing is known but its declaration."""
    entry = registry[name]
    moment = "2025-01-01T00:00:00.000Z"
    digest = digest_of(name)
    artifact = {
        "path": artifact_path(name, name),
        "type": "npz",
        "size": 1,
        "sha256": digest,
        "content_digest": digest,
        "schema_version": entry.spec.schema_version,
        "retention_class": "derived",
    }
    return {
        "name": name,
        "kind": entry.node.kind,
        "status": "ok",
        "empty_reason": None,
        "error": None,
        "error_code": None,
        "producer_version": entry.spec.producer_version,
        "schema_version": entry.spec.schema_version,
        "models_used": [],
        "model_signature": model_signature(()),
        "idempotency_key": digest,
        "device_used": None,
        "cache_hit": False,
        "reused_from": None,
        "warnings": [],
        "started_at": moment,
        "finished_at": moment,
        "duration_ms": 1.0,
        "artifacts": [artifact],
        "batching": dict.fromkeys(BATCHING_FIELDS),
        "retry_count": 0,
        "notes": None,
    }


def _utc(video: SyntheticVideo, hours: float) -> str:
    return utc_text(video.first_seen + timedelta(hours=hours))
