"""SYNTHETIC corpora: feature vectors of runs that never happened, as the readers would hand them over."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trendflow.contracts.artifact import Artifact
from trendflow.contracts.canonical import content_digest
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.keys import model_signature
from trendflow.contracts.manifest import component_row_from_meta, new_manifest, update_run, upsert_row
from trendflow.contracts.meta import build_meta
from trendflow.contracts.schema import SchemaRegistry
from trendflow.dataset.corpus import Corpus, Outcome, RunRecord
from trendflow.dataset.feature_table import Vector, build_table
from trendflow.dataset.health import Readings, assess
from trendflow.dataset.health_model import CheckResult, HealthReport, ReferenceReport
from trendflow.storage.result_store import ResultStore

SCHEMAS = SchemaRegistry.load()
COMPONENT, SCHEMA = "cut_detection", "cut_detection_npz_v2"
"""Whose columns a synthetic corpus pretends to hold; some of them have a range of [0, 1]."""
NO_MODEL = model_signature(())
CONFIGURATION = ("c" * 64, "sampling_v1")
VERSION = ("1.0.0", SCHEMA, NO_MODEL)


def column(name: str) -> str:
    return f"{COMPONENT}__{name}__value"


def outcome(**changes: Any) -> Outcome:
    return dataclasses.replace(Outcome("ok", None, None, False, False, VERSION), **changes)


def record(number: int, **changes: Any) -> RunRecord:
    made = RunRecord(
        run_path=f"upload/synthetic-{number}/run-1",
        created_at=f"2026-01-01T00:00:00.{number % 1000:03d}Z",
        successful=True,
        configuration=CONFIGURATION,
        source_sha256=f"{number:064x}",
        has_document=False,
        outcomes={COMPONENT: outcome()},
        skipped=frozenset(),
        vector_digest="d" * 64,
    )
    return dataclasses.replace(made, **changes)


def vector(
    values: Mapping[str, float], reasons: Mapping[str, str] | None = None, versions: tuple[str, str] = VERSION[:2]
) -> Vector:
    """`values` by short name; a missing one is NaN."""
    names = sorted(values)
    return Vector(
        names=tuple(column(name) for name in names),
        values=np.array([values[name] for name in names], dtype=np.float32),
        components=(COMPONENT,) * len(names),
        versions={COMPONENT: versions},
        reasons={column(name): text for name, text in (reasons or {}).items()},
    )


def corpus(records: Sequence[RunRecord], **changes: Any) -> Corpus:
    made = Corpus("starter", CONFIGURATION, len(records), tuple(records), tuple(records), (), {}, ())
    return dataclasses.replace(made, **changes)


def readings(
    columns: Mapping[str, np.ndarray],
    records: Sequence[RunRecord] | None = None,
    reasons: Mapping[str, str] | None = None,
    **changes: Any,
) -> Readings:
    """A corpus of one row per video from columns `[R]` by short name; `reasons` hold for every NaN of a column."""
    count = len(next(iter(columns.values())))
    rows = list(records or [record(number) for number in range(count)])
    vectors = []
    for number in range(count):
        values = {name: float(values[number]) for name, values in columns.items()}
        missing = {name: text for name, text in (reasons or {}).items() if np.isnan(values[name])}
        vectors.append(vector(values, missing))
    table = build_table(list(zip(rows, vectors, strict=True)), SCHEMAS)
    return Readings(corpus(rows, **changes), table)


def report(columns: Mapping[str, np.ndarray], reference: ReferenceReport | None = None, **changes: Any) -> HealthReport:
    return assess(readings(columns, **changes), reference)


def check(found: HealthReport, name: str) -> CheckResult:
    return next(result for result in found.checks if result.name == name)


def failing(found: HealthReport, name: str) -> list[str]:
    """Subjects of what a check fails on, without what all columns share."""
    subjects = [finding.subject for finding in check(found, name).findings if not finding.advisory]
    return [subject.replace(f"{COMPONENT}__", "").replace("__value", "") for subject in subjects]


_OF_MEDIA = {
    "prov_component": COMPONENT,
    "prov_schema_version": SCHEMA,
    "prov_producer_version": "1.0.0",
    "prov_content_digest": "e" * 64,
    "prov_source_kind": "media",
    "prov_observed_at": "publish_time",
}


def store_run(
    results: ResultStore,
    values: Mapping[str, float],
    *,
    video: str,
    run: str = "run-1",
    created_at: str = "2026-01-01T00:00:00.000Z",
    config_hash: str = "c" * 64,
    reasons: Mapping[str, str] | None = None,
    profile: str = "starter",
    finished: bool = True,
    provenance: Mapping[str, str] | None = None,
) -> str:
    """Store a SYNTHETIC finished run with a feature vector; gives its path.

    `provenance`: `prov_*` member → what it says of every column instead.
    """
    identity = RunIdentity("upload", video, run, config_hash, "sampling_v1", "0.1.0")
    results.create_manifest(new_manifest(identity, created_at, profile, {"type": "upload", "sha256": _digest(video)}))
    found = vector(values, reasons)
    size = len(found.names)
    arrays = {
        "feature_names": np.array(found.names),
        "feature_values": found.values,
        "feature_present_mask": np.isfinite(found.values),
        **{name: np.array([value] * size) for name, value in {**_OF_MEDIA, **(provenance or {})}.items()},
    }
    rows = [
        _row(results, identity, "feature_vector", "feature_vector_npz_v1", arrays, {"absent_features": found.reasons}),
        _row(results, identity, COMPONENT, SCHEMA, {}, {}),
    ]

    def close(manifest: dict[str, Any]) -> dict[str, Any]:
        for row in rows:
            manifest = upsert_row(manifest, row)
        return update_run(manifest, finished_at=created_at) if finished else manifest

    results.update_manifest(identity.run_path, close)
    return identity.run_path


def _digest(text: str) -> str:
    return text.encode().hex().ljust(64, "0")[:64]


def _row(
    results: ResultStore,
    identity: RunIdentity,
    component: str,
    schema: str,
    arrays: Mapping[str, np.ndarray],
    extra: Mapping[str, Any],
) -> dict[str, Any]:
    meta = build_meta(
        identity,
        Artifact(arrays, meta=dict(extra)),
        producer=component,
        producer_version="1.0.0",
        schema_version=schema,
        idempotency_key="f" * 64,
        input_digest="f" * 64,
        content_digest=content_digest(component, schema, "ok", None, arrays),
    )
    artifact = results.write_artifact(identity.run_path, component, component, arrays, meta)
    times: dict[str, Any] = {"started_at": meta["created_at"], "finished_at": meta["created_at"], "duration_ms": 1.0}
    return component_row_from_meta(meta, kind="other", artifacts=[artifact], **times)
