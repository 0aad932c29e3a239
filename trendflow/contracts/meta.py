"""Artifact meta: the one place that builds the `meta` member of every NPZ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trendflow.contracts.artifact import Artifact
from trendflow.contracts.canonical import content_digest, utc_now
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import IDENTITY_KEYS, RunIdentity
from trendflow.contracts.keys import model_signature, models_used_rows

REQUIRED_META: tuple[str, ...] = (
    "producer",
    "producer_version",
    "schema_version",
    "created_at",
    *IDENTITY_KEYS,
    "status",
    "empty_reason",
    "error_code",
    "error",
    "models_used",
    "model_signature",
    "stage_timings_ms",
    "device_used",
    "idempotency_key",
    "input_digest",
    "content_digest",
    "cache_hit",
    "reused_from",
    "warnings",
)

OPTIONAL_META: tuple[str, ...] = (
    "total_frames",
    "processed_frames",
    "analysis_fps",
    "analysis_width",
    "analysis_height",
    "batching",
    "scheduler_knobs",
    "resource_metrics",
    "features_enabled",
    "absent_features",
    "seed",
    "runtime_env",
    "git_commit",
    "computed_at",
    "attempt",
    "prompts_version",
    "thresholds_version",
    "label_vocab_version",
    "db_name",
    "db_version",
    "db_digest",
    "backend_proxy_version",
    "preview_k",
    "preview_map_size",
    "coord_space",
    "upstream_models",
)


def build_meta(
    identity: RunIdentity,
    artifact: Artifact,
    *,
    producer: str,
    producer_version: str,
    schema_version: str,
    idempotency_key: str,
    input_digest: str,
    content_digest: str,
    created_at: str | None = None,
    optional: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Complete meta of a freshly computed artifact.

    `content_digest` is `canonical.content_digest` of the arrays. `optional` adds optional keys the component cannot
    know (`attempt`, `batching`, `runtime_env`, …); the component's own `artifact.meta` may not contradict them.
    Raises `artifact_validation_failed` for a key that is not in `OPTIONAL_META`.
    """
    extra = _optional(artifact.meta, optional or {})
    return {
        **_head(identity, producer, producer_version, schema_version, created_at),
        "status": artifact.status,
        "empty_reason": artifact.empty_reason,
        "error_code": None,
        "error": None,
        "models_used": models_used_rows(artifact.models_used),
        "model_signature": model_signature(artifact.models_used),
        "stage_timings_ms": {stage: float(ms) for stage, ms in artifact.stage_timings_ms.items()},
        "device_used": artifact.device_used,
        "idempotency_key": idempotency_key,
        "input_digest": input_digest,
        "content_digest": content_digest,
        "cache_hit": False,
        "reused_from": None,
        "warnings": list(artifact.warnings),
        **extra,
    }


def error_meta(
    identity: RunIdentity,
    error: TrendFlowError,
    *,
    producer: str,
    producer_version: str,
    schema_version: str,
    idempotency_key: str | None,
    input_digest: str | None,
    created_at: str | None = None,
    optional: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Meta of an error artifact, which holds nothing else.

    The key and the input digest are None when the failure came before they could be computed.
    """
    return {
        **_head(identity, producer, producer_version, schema_version, created_at),
        "status": "error",
        "empty_reason": None,
        "error_code": error.error_code,
        "error": error.message,
        "models_used": [],
        "model_signature": model_signature(()),
        "stage_timings_ms": {},
        "device_used": None,
        "idempotency_key": idempotency_key,
        "input_digest": input_digest,
        "content_digest": content_digest(producer, schema_version, "error", None, {}),
        "cache_hit": False,
        "reused_from": None,
        "warnings": [],
        **_optional({}, optional or {}),
    }


def restamp_meta(
    meta: Mapping[str, Any], identity: RunIdentity, created_at: str, reused_from: Mapping[str, str]
) -> dict[str, Any]:
    """Meta of a reused artifact: another run and release, everything else kept.

    `reused_from` is `{run_id, created_at, sha256}` of the artifact that was copied. Raises
    `artifact_validation_failed` for an error artifact (never a cache hit) and for an artifact whose identity says
    that it answers another question (video, configuration or sampling policy differ).
    """
    if meta["status"] == "error":
        raise TrendFlowError("artifact_validation_failed", "An error artifact is never reused.")
    if set(reused_from) != {"run_id", "created_at", "sha256"}:
        raise TrendFlowError("artifact_validation_failed", "reused_from must hold run_id, created_at and sha256.")
    values = identity.as_dict()
    for key in ("platform_id", "video_id", "config_hash", "sampling_policy_version"):
        if meta[key] != values[key]:
            raise TrendFlowError("artifact_validation_failed", f"A reused artifact has another {key}.", key=key)
    return {**meta, **values, "created_at": created_at, "cache_hit": True, "reused_from": dict(reused_from)}


def _head(
    identity: RunIdentity, producer: str, producer_version: str, schema_version: str, created_at: str | None
) -> dict[str, Any]:
    return {
        "producer": producer,
        "producer_version": producer_version,
        "schema_version": schema_version,
        "created_at": created_at or utc_now(),
        **identity.as_dict(),
    }


def _optional(component: Mapping[str, Any], wrapper: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**component, **wrapper}
    unknown = sorted(set(merged) - set(OPTIONAL_META))
    if unknown:
        raise TrendFlowError("artifact_validation_failed", f"Meta keys {unknown} are not in the contract.")
    clash = sorted(key for key in set(component) & set(wrapper) if component[key] != wrapper[key])
    if clash:
        raise TrendFlowError("artifact_validation_failed", f"Component and pipeline disagree on meta {clash}.")
    return merged
