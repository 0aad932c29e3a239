"""Checks of an artifact's meta: keys, identity, status rules and digests. Every check returns sentences."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from typing import Any

import numpy as np

from trendflow.contracts.errors import ERROR_RULES, MAX_MESSAGE, TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.keys import model_signature
from trendflow.contracts.meta import REQUIRED_META
from trendflow.contracts.schema_types import ArtifactSchema
from trendflow.contracts.vocab import ARTIFACT_STATUSES, EMPTY_REASONS, WARNINGS

COORD_SPACES = ("norm_xy", "px")
REUSED_FROM = ("run_id", "created_at", "sha256")

_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_DEVICE = re.compile(r"cpu|cuda:\d+")

Meta = Mapping[str, Any]


def check_meta(schema: ArtifactSchema, arrays: Mapping[str, np.ndarray], meta: Meta) -> list[str]:
    """Problems of the meta of one artifact. `arrays` decide where meta speaks about content."""
    missing = [key for key in _required(schema, meta) if key not in meta]
    if missing:
        return [f"Meta lacks {', '.join(missing)}."]
    known = {*schema.required_meta, *schema.optional_meta}
    problems = [f"Meta key {key!r} is not in the contract." for key in sorted(set(meta) - known)]
    if meta["producer"] != schema.producer:
        problems.append(f"producer is {meta['producer']!r}, not {schema.producer!r}.")
    for check in (_identity, _status, _models, _bookkeeping):
        problems += check(meta)
    if meta["status"] != "error":
        problems += _content(schema, arrays, meta)
    return problems


def _required(schema: ArtifactSchema, meta: Meta) -> tuple[str, ...]:
    # An error artifact describes no content, so it owes only what every artifact owes.
    return REQUIRED_META if meta.get("status") == "error" else schema.required_meta


def _identity(meta: Meta) -> Iterator[str]:
    try:
        RunIdentity.from_mapping(dict(meta))
    except TrendFlowError as exc:
        yield f"The run identity is not valid: {exc.message}"
    except TypeError:
        yield "The run identity holds a value that is no string."


def _status(meta: Meta) -> Iterator[str]:
    status, reason, code, error = (meta[key] for key in ("status", "empty_reason", "error_code", "error"))
    if not _is_word(status, ARTIFACT_STATUSES):
        yield f"status {status!r} is not one of {', '.join(sorted(ARTIFACT_STATUSES))}."
    if (status == "empty") != (reason is not None):
        yield "empty_reason must be set exactly when status is empty."
    elif reason is not None and not _is_word(reason, EMPTY_REASONS):
        yield f"empty_reason {reason!r} is not in the vocabulary."
    if (status == "error") != (code is not None) or (code is None) != (error is None):
        yield "error_code and error must be set exactly when status is error."
    elif code is not None and not _is_word(code, ERROR_RULES):
        yield f"error_code {code!r} is not in the vocabulary."
    if error is not None and (not isinstance(error, str) or len(error) > MAX_MESSAGE):
        yield f"error is not a text of at most {MAX_MESSAGE} characters."
    warnings = meta["warnings"]
    if not _is_list_of_words(warnings) or len(set(warnings)) != len(warnings):
        yield "warnings must be a list of distinct codes."
    elif not WARNINGS.issuperset(warnings):
        yield f"warnings {sorted(set(warnings) - WARNINGS)} are not in the vocabulary."


def _models(meta: Meta) -> Iterator[str]:
    rows = meta["models_used"]
    try:
        signature = model_signature(rows) if isinstance(rows, list) else None
    except (TrendFlowError, TypeError, ValueError):
        signature = None
    if signature is None:
        yield "models_used is not a list of the seven-string rows of the contract."
        return
    if meta["model_signature"] != signature:
        yield "model_signature is not the digest of models_used."


def _bookkeeping(meta: Meta) -> Iterator[str]:
    if not _matches(_TIMESTAMP, meta["created_at"]):
        yield "created_at is not a UTC time with milliseconds."
    if not _matches(_HEX64, meta["content_digest"]):
        yield "content_digest is not a sha256."
    for key in ("idempotency_key", "input_digest"):
        # A failure may come before the inputs are known; a result cannot.
        if not _matches(_HEX64, meta[key]) and not (meta[key] is None and meta["status"] == "error"):
            yield f"{key} is not a sha256."
    if meta["device_used"] is not None and not _matches(_DEVICE, meta["device_used"]):
        yield "device_used is neither cpu nor cuda:<n>."
    timings = meta["stage_timings_ms"]
    if not isinstance(timings, Mapping) or not all(_is_number(value) and value >= 0 for value in timings.values()):
        yield "stage_timings_ms is not a map of stages to milliseconds."
    if not isinstance(meta["cache_hit"], bool) or meta["cache_hit"] != (meta["reused_from"] is not None):
        yield "reused_from must be set exactly when cache_hit is true."
    elif meta["cache_hit"] and not _has_keys(meta["reused_from"], REUSED_FROM):
        yield f"reused_from must hold {', '.join(REUSED_FROM)}."


def _content(schema: ArtifactSchema, arrays: Mapping[str, np.ndarray], meta: Meta) -> Iterator[str]:
    names, values = arrays.get("feature_names"), arrays.get("feature_values")
    measured: dict[str, float] = {}
    if names is not None and values is not None and names.shape == values.shape:
        measured = dict(zip(names.tolist(), values.tolist(), strict=True))
    absent = meta.get("absent_features", {})
    if not isinstance(absent, Mapping):
        yield "absent_features is not a map of names to reasons."
        absent = {}
    for key in absent:
        # An exact name speaks for itself only: `tempo_bpm` is no prefix that also covers `tempo_bpm_std`, nor is the
        # array `embedding` one that covers `embedding_change_mean`.
        exact = key in measured or key in schema.fields
        covered = [name for name in measured if (name == key if exact else name.startswith(key))]
        if any(not np.isnan(measured[name]) for name in covered):
            yield f"absent_features names {key!r}, which has a value."
    enabled = meta.get("features_enabled", [])
    if not _is_list_of_words(enabled) or any(name not in measured and name not in arrays for name in enabled):
        yield "features_enabled names something the artifact does not hold."
    spaces = meta.get("coord_space")
    for field in schema.fields.values():
        if field.name in arrays and field.unit in COORD_SPACES:
            declared = spaces.get(field.name) if isinstance(spaces, Mapping) else spaces
            if declared != field.unit:
                yield f"coord_space of {field.name!r} is {declared!r}, not {field.unit!r}."


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_word(value: Any, vocabulary: Container[str]) -> bool:
    return isinstance(value, str) and value in vocabulary


def _is_list_of_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _has_keys(value: Any, keys: tuple[str, ...]) -> bool:
    return isinstance(value, Mapping) and set(value) == set(keys)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
