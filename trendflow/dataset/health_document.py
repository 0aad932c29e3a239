"""A health report as JSON (`feature_health_v1`), and an earlier one as the reference of a later.

The document is a presentation of what lies in the feature vectors and can be computed again from them. It holds
distributions as order statistics, no video, no run and no text of either.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from trendflow import __version__
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.contracts.schema_types import Bounds
from trendflow.dataset.drift import Reference
from trendflow.dataset.feature_table import Version
from trendflow.dataset.health_model import CheckResult, ColumnHealth, ComponentHealth, HealthReport, ReferenceReport

SCHEMA_VERSION = "feature_health_v1"

_COUNTS = ("n_rows", "n", "n_unique")
_STATISTICS = (
    *("nan_rate", "inf_rate", "top_value", "top_value_share", "mean", "std", "p01", "p50", "p99"),
    "out_of_range_rate",
)
_RUNS = ("n_runs", "n_videos", "n_rows", "n_sources", "set_aside")


def to_document(report: HealthReport) -> dict[str, Any]:
    """The report as a JSON value; NaN becomes null."""
    names = [column.name for column in report.columns]
    return {
        "schema_version": SCHEMA_VERSION,
        "created_at": report.created_at,
        "dataprocessor_version": __version__,
        "profile": report.profile,
        "config_hash": report.config_hash,
        "sampling_policy_version": report.sampling_policy_version,
        "rules_version": report.rules.version,
        "reference_created_at": report.reference_created_at,
        "passed": report.passed,
        **{name: getattr(report, name) for name in _RUNS},
        "checks": [_check(check) for check in report.checks],
        "components": [_component(component) for component in report.components],
        "columns": [_column(column) for column in report.columns],
        "embeddings": dict(report.embeddings),
        "pairs": [
            {
                "first": names[pair.first],
                "second": names[pair.second],
                "n": pair.n,
                "pearson": _number(pair.pearson),
                "spearman": _number(pair.spearman),
            }
            for pair in report.pairs
        ],
        "reproducibility": {
            "pairs": report.reproducibility.pairs,
            "failing": report.reproducibility.failing,
            "worst_share": _number(report.reproducibility.worst_share),
            "columns": dict(report.reproducibility.columns),
        },
    }


def to_json(report: HealthReport) -> bytes:
    """The document as a file, one line."""
    return json.dumps(to_document(report), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def read_reference(data: bytes, schemas: SchemaRegistry) -> ReferenceReport:
    """An earlier report to compare with. Raises `config_invalid` when `data` is none."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise TrendFlowError("config_invalid", "The reference is not JSON.") from exc
    problems = validate_document(schemas, SCHEMA_VERSION, document)
    if problems:
        raise TrendFlowError("config_invalid", f"The reference is no feature health report: {problems[0]}")
    return ReferenceReport(
        created_at=document["created_at"],
        columns={
            column["name"]: Reference(
                n=column["n"],
                nan_rate=math.nan if column["nan_rate"] is None else column["nan_rate"],
                # Through float32, which the digits are of: a value must equal its own copy. Sorted, because the schema
                # cannot promise it and every comparison relies on it.
                sketch=np.sort(np.array(column["sketch"], dtype=np.float32)).astype(np.float64),
            )
            for column in document["columns"]
        },
        versions={
            component["name"]: _version(component["versions"][0])
            for component in document["components"]
            if component["versions"]
        },
    )


def _version(entry: Mapping[str, str]) -> Version:
    return entry["producer_version"], entry["schema_version"], entry["model_signature"]


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _range(bounds: Bounds) -> list[float | None] | None:
    return None if bounds == (None, None) else list(bounds)


def _check(check: CheckResult) -> dict[str, Any]:
    return {
        "name": check.name,
        "rule": check.rule,
        "verdict": check.verdict,
        "severity": check.severity,
        "summary": check.summary,
        "findings": [
            {
                "subject": finding.subject,
                "text": finding.text,
                "severity": finding.severity,
                "advisory": finding.advisory,
            }
            for finding in check.findings
        ],
    }


def _component(component: ComponentHealth) -> dict[str, Any]:
    return {
        "name": component.name,
        "statuses": dict(component.statuses),
        "empty_reasons": dict(component.empty_reasons),
        "errors": dict(component.errors),
        "shortfalls": component.shortfalls,
        "cache_hits": component.cache_hits,
        "coverage": _number(component.coverage),
        "versions": [
            {"producer_version": producer, "schema_version": schema, "model_signature": signature, "runs": runs}
            for (producer, schema, signature), runs in component.versions.items()
        ],
    }


def _column(column: ColumnHealth) -> dict[str, Any]:
    found = column.statistics
    return {
        "name": column.name,
        "component": column.info.component,
        "unit": column.info.unit,
        "range": _range(column.info.range),
        "coverage": column.coverage,
        "diverse": column.diverse,
        "unexplained_rate": _number(column.unexplained_rate),
        **{name: getattr(found, name) for name in _COUNTS},
        **{name: _number(getattr(found, name)) for name in _STATISTICS},
        "ks_vs_reference": None if column.drift is None else _number(column.drift.ks),
        "ks_p_vs_reference": None if column.drift is None else _number(column.drift.ks_p),
        "psi_vs_reference": None if column.drift is None else _number(column.drift.psi),
        "duplicates": list(column.duplicates),
        "empty_reasons": dict(column.empty_reasons),
        "absent_reasons": dict(column.absent_reasons),
        # Values are float32; nine digits tell any two of them apart.
        "sketch": [float(f"{value:.9g}") for value in found.sketch.tolist()],
    }
