"""JSON documents of training: written only when they satisfy their schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document

METRICS_SCHEMA, COMPARISON_SCHEMA = "training_metrics_v1", "training_comparison_v1"


def require_valid(document: Mapping[str, Any]) -> None:
    """Hold a document against the schema that its `schema_version` names. Raises `artifact_validation_failed`."""
    name = str(document["schema_version"])
    problems = validate_document(SchemaRegistry.load(), name, document)
    if problems:
        raise TrendFlowError("artifact_validation_failed", f"A document is no {name}: {problems[0]}", schema=name)


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """A document as a file, its keys in the order given."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=1).encode() + b"\n"
