"""The parity report: what a variant is, what it was measured on, and whether it may be published.

The file is data for people and for the catalogue, which pins it by digest; `schemas/model_parity_v1.json` is its form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.package_data import data_path
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.models.plan_identity import PlanIdentity
from trendflow.optimisation.parity import LIMITS, Kind, Limit, Move, Precision

SCHEMA_VERSION = "model_parity_v1"
PARITY = "parity"
"""Folder of the reports below the shipped `models`: `<variant>.json`."""
MAX_SCALAR_MOVE = 0.1
"""Of the typical move, in standard deviations of the scalar over the videos."""
MIN_SPEEDUP = 1.0


@dataclass(frozen=True)
class Speed:
    """Median milliseconds of one batch; `speedup` is the median of the ratios of neighbouring runs.

    Both models run on one thread of `cpu`, or on the GPU that a plan was built for.
    """

    reference_ms: float
    variant_ms: float
    speedup: float
    batch: int
    repeats: int
    cpu: str


@dataclass(frozen=True)
class Verdict:
    """Everything a variant is judged by."""

    kind: Kind
    precision: Precision
    metrics: Mapping[str, float]
    scalars: Mapping[str, Move]
    speed: Speed

    @property
    def limits(self) -> tuple[Limit, ...]:
        return LIMITS[self.kind, self.precision]

    @property
    def faster(self) -> bool:
        return self.speed.speedup > MIN_SPEEDUP

    @property
    def published(self) -> bool:
        return not self.reasons

    @property
    def agrees(self) -> bool:
        """Whether its results may stand for the reference's, however fast they come."""
        return not self._disagreements

    @property
    def reasons(self) -> list[str]:
        """Why it may not be published, one clause each; empty when it may."""
        slow = [] if self.faster else [f"it is not faster ({self.speed.speedup:.2f} times the speed)"]
        return self._disagreements + slow

    @property
    def _disagreements(self) -> list[str]:
        found = [
            f"{limit.metric} is {self.metrics[limit.metric]:.4f} instead of {'≥' if limit.at_least else '≤'} "
            f"{limit.bound:g}"
            for limit in self.limits
            if not limit.holds(self.metrics[limit.metric])
        ]
        typical = {name: move.typical for name, move in self.scalars.items()}
        moved = sorted(name for name, move in typical.items() if not move <= MAX_SCALAR_MOVE)
        if moved:
            worst = max(moved, key=typical.__getitem__)
            found.append(
                f"{len(moved)} of {len(self.scalars)} scalars move by more than {MAX_SCALAR_MOVE:g} standard "
                f"deviations, {worst} by {typical[worst]:.2f}"
            )
        return found


def build_report(
    verdict: Verdict,
    *,
    created_at: str,
    reference: Mapping[str, Any],
    variant: Mapping[str, Any],
    component: Mapping[str, str],
    method: Mapping[str, Any],
    versions: Mapping[str, str],
    videos: Sequence[Mapping[str, Any]],
    plan: PlanIdentity | None = None,
) -> dict[str, Any]:
    """The document; `plan` is what a TensorRT plan was built for.

    Raises `internal_error` when the document is not what its schema says.
    """
    report = {
        "schema_version": SCHEMA_VERSION,
        "created_at": created_at,
        "reference": dict(reference),
        "variant": dict(variant),
        "component": dict(component),
        "kind": verdict.kind,
        "method": dict(method),
        "versions": dict(versions),
        "videos": [dict(video) for video in videos],
        "metrics": {name: _number(value) for name, value in verdict.metrics.items()},
        "limits": [
            {
                "metric": limit.metric,
                "relation": ">=" if limit.at_least else "<=",
                "bound": limit.bound,
                "holds": limit.holds(verdict.metrics[limit.metric]),
            }
            for limit in verdict.limits
        ],
        "scalars": {
            "limit_std": MAX_SCALAR_MOVE,
            "moved_std": {name: _number(move.typical) for name, move in sorted(verdict.scalars.items())},
            "largest_std": {name: _number(move.largest) for name, move in sorted(verdict.scalars.items())},
        },
        "speed": {
            name: _number(value) if isinstance(value, float) else value for name, value in vars(verdict.speed).items()
        },
        "published": verdict.published,
        "reasons": verdict.reasons,
    }
    if plan is not None:
        report["plan"] = plan.model_dump()
    problems = validate_document(SchemaRegistry.load(), SCHEMA_VERSION, report)
    if problems:
        raise TrendFlowError("internal_error", f"The parity report is not valid: {problems[0]}")
    return report


def encode_report(report: Mapping[str, Any]) -> bytes:
    """The file, readable and stable."""
    return json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def read_report(data: bytes, schemas: SchemaRegistry) -> dict[str, Any]:
    """A stored report. Raises `config_invalid` when `data` is none."""
    try:
        report = json.loads(data)
    except ValueError as exc:
        raise TrendFlowError("config_invalid", "The parity report is not JSON.") from exc
    problems = validate_document(schemas, SCHEMA_VERSION, report)
    if problems:
        raise TrendFlowError("config_invalid", f"The file is no parity report: {problems[0]}")
    return dict(report)


def stored_reports(schemas: SchemaRegistry) -> list[dict[str, Any]]:
    """The reports that ship with the program, by name. Raises what `read_report` raises."""
    return [read_report(path.read_bytes(), schemas) for path in sorted((data_path("models") / PARITY).glob("*.json"))]


def _number(value: float) -> float | None:
    """Six significant digits, which no measurement here has more of; None for what is infinite or unknown."""
    return float(np.format_float_positional(value, 6, fractional=False)) if math.isfinite(value) else None
