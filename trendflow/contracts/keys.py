"""Idempotency keys and data versions: what makes a result reusable.

A key covers everything that can change a value (source, configuration, code, schema, models, upstream content) and
nothing that cannot (run id, release of the pipeline, scheduling).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Literal

from trendflow.contracts.artifact import ModelUsed
from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError

MODEL_USED_FIELDS = ("model_name", "model_version", "weights_digest", "runtime", "engine", "precision", "device")
KEY_PARTS = (
    "platform_id",
    "video_id",
    "component",
    "config_hash",
    "sampling_policy_version",
    "producer_version",
    "schema_version",
    "model_signature",
    "input_digest",
)

UpstreamDigests = Mapping[str, Mapping[str, str] | Literal["error"]]
"""Per upstream component: content digests by artifact stem, or `"error"` for a soft dependency that failed."""

_SIGNATURE_ORDER = ("model_name", "model_version", "weights_digest", "engine", "precision", "device", "runtime")
_HEX64 = re.compile(r"[0-9a-f]{64}\Z")


def models_used_rows(models_used: Iterable[ModelUsed | Mapping[str, Any]]) -> list[dict[str, str]]:
    """Models as the seven-string rows of artifact meta, in signature order.

    Raises `model_spec_invalid` when a row lacks one of the seven strings, holds another key, or names a device
    ordinal (`cuda:0`) where the class (`cuda`) belongs.
    """
    rows = [asdict(model) if isinstance(model, ModelUsed) else dict(model) for model in models_used]
    for row in rows:
        if set(row) != set(MODEL_USED_FIELDS) or not all(isinstance(value, str) and value for value in row.values()):
            raise TrendFlowError("model_spec_invalid", f"A models_used row must hold exactly {MODEL_USED_FIELDS}.")
        if ":" in row["device"]:
            raise TrendFlowError(
                "model_spec_invalid", "models_used names the device class; the ordinal is device_used."
            )
    return sorted(rows, key=lambda row: tuple(row[field] for field in _SIGNATURE_ORDER))


def model_signature(models_used: Iterable[ModelUsed | Mapping[str, Any]]) -> str:
    """sha256 of the canonical JSON of the sorted `models_used` rows; of `[]` when no model ran."""
    return digest_of(models_used_rows(models_used))


def input_digest(
    *,
    source_sha256: str,
    document_digest: str | None,
    reference: Mapping[str, str],
    upstream: UpstreamDigests,
) -> str:
    """Digest of everything a component reads.

    `document_digest` is None for components that read no text; `reference` maps file names (prompt banks, threshold
    files, galleries) to their sha256; `upstream` lists exactly the declared dependencies that are enabled.
    """
    return digest_of(
        {
            "source_media": _digest("source_sha256", source_sha256),
            "document": None if document_digest is None else _digest("document_digest", document_digest),
            "reference": {name: _digest(name, value) for name, value in reference.items()},
            "upstream": {
                name: digests if isinstance(digests, str) else dict(digests) for name, digests in upstream.items()
            },
        }
    )


def idempotency_key(
    *,
    platform_id: str,
    video_id: str,
    component: str,
    config_hash: str,
    sampling_policy_version: str,
    producer_version: str,
    schema_version: str,
    model_signature: str,
    input_digest: str,
) -> str:
    """The key under which a result may be reused. `run_id` and `dataprocessor_version` are deliberately not in it."""
    return digest_of(
        {
            "platform_id": platform_id,
            "video_id": video_id,
            "component": component,
            "config_hash": config_hash,
            "sampling_policy_version": sampling_policy_version,
            "producer_version": producer_version,
            "schema_version": schema_version,
            "model_signature": model_signature,
            "input_digest": input_digest,
        }
    )


def data_version(digests: Mapping[str, str]) -> str:
    """Data version of a component from its `content_digest` by artifact stem.

    One artifact: its content digest. Several: sha256 of the canonical JSON `{artifact: content_digest}`.
    """
    if not digests:
        raise TrendFlowError("artifact_validation_failed", "A data version needs at least one artifact.")
    return next(iter(digests.values())) if len(digests) == 1 else digest_of(dict(digests))


def code_version(producer_version: str, schema_version: str, planned_model_signature: str) -> str:
    """Code version of a component: algorithm, schema and planned models in one comparable string."""
    return f"{producer_version}+{schema_version}+{planned_model_signature}"


def _digest(name: str, value: str) -> str:
    if not _HEX64.match(value):
        raise TrendFlowError("artifact_validation_failed", f"{name} is not a sha256 in lower-case hex.", name=name)
    return value
