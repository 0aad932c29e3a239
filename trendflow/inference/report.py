"""The prediction report (`prediction_report_v1`): a JSON document, its schema, and what the schema cannot say."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.inference.chain import TIERS
from trendflow.inference.outputs import target_of
from trendflow.inference.quantiles import NAMES

REPORT_VERSION = "prediction_report_v1"

_TOLERANCE = 1e-9
"""Relative: the document holds shortest round-trip floats, so only the last bits of a sum may differ."""


def require_valid(document: Mapping[str, Any], schemas: SchemaRegistry) -> None:
    """Raise `artifact_validation_failed` with the first problem of a report."""
    problems = validate_report(document, schemas)
    if problems:
        raise TrendFlowError("artifact_validation_failed", f"The prediction report is not valid: {problems[0]}")


def validate_report(document: Any, schemas: SchemaRegistry) -> list[str]:
    """Problems of a report: its schema first and, where that holds, what its numbers must say of each other."""
    return validate_document(schemas, REPORT_VERSION, document) or list(_semantics(document))


def to_json(document: Mapping[str, Any]) -> bytes:
    """The report as a file, one line."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _semantics(document: Mapping[str, Any]) -> Iterator[str]:
    yield from _status(document)
    yield from _path(document)
    outputs = document["outputs"]
    if outputs is None:
        return
    x0 = {target: document["inputs_summary"][f"x0_{target}"] for target in ("views", "likes")}
    for head, found in outputs["heads"].items():
        yield from (f"outputs.heads.{head}: {problem}" for problem in _head(found, x0[target_of(head)]))
    for name, heads in (document["comparators"] or {}).items():
        for head in sorted(set(outputs["heads"]) ^ set(heads)):
            yield f"comparators.{name}: {head} is not on both sides."
    yield from _horizons(outputs["heads"])
    for name in {*outputs["put_in_order"]["levels"], *outputs["put_in_order"]["horizons"]} - set(outputs["heads"]):
        yield f"outputs.put_in_order: {name} is no head of the report."
    if not any(not found["masked"] for found in outputs["heads"].values()):
        yield "outputs: every head is masked, which is no prediction."
    for head, found in ((document["explainability"] or {}).get("heads") or {}).items():
        total = math.fsum([found["base"], found["others"], *(row["contribution"] for row in found["drivers"])])
        if not _equal(total, found["prediction"], 1e-6):
            yield f"explainability.heads.{head}: the contributions do not add up to the prediction."


def _status(document: Mapping[str, Any]) -> Iterator[str]:
    status, numbers = document["prediction_status"], document["outputs"] is not None
    failed = [row["stage"] for row in document["stages"] if row["status"] == "error"]
    if (document["status"] == "error") != bool(failed):
        yield "status: error goes with a failed stage, and only with one."
    if failed and status != "unavailable":
        yield "prediction_status: a failed forecast is unavailable."
    if numbers == (status == "unavailable"):
        yield "outputs: there are numbers exactly when the prediction is not unavailable."
    for name in ("model_used", "comparators", "interval"):
        if (document[name] is not None) != numbers:
            yield f"{name}: it is there exactly when there are numbers."
    used = document["model_used"]
    if used is not None and used["synthetic"] and not document["synthetic"]:
        yield "synthetic: a model of synthetic data makes the whole report synthetic."


def _path(document: Mapping[str, Any]) -> Iterator[str]:
    requested, used = document["model_requested"]["tier"], document["model_used"]
    end = None if used is None else used["tier"]
    at: str | None = requested
    for step in document["degraded_path"]:
        if step["from"] != at or (step["to"] is not None and TIERS.index(step["to"]) <= TIERS.index(step["from"])):
            yield "degraded_path: the steps do not follow each other downwards."
            return
        at = step["to"]
    if document["status"] == "success" and at != end:
        yield "degraded_path: the steps do not lead from the requested model to the used one."
    if used is not None and (document["prediction_status"] == "degraded") != bool(document["degraded_path"]):
        yield "prediction_status: degraded goes with a path, and only with one."


def _head(found: Mapping[str, Any], x0: float | None) -> Iterator[str]:
    numbers = [value for name, value in found.items() if name != "masked"]
    if found["masked"]:
        if any(value is not None for value in numbers):
            yield "a masked head has no numbers."
        return
    if any(value is None for value in numbers):
        yield "a number is missing."
        return
    if x0 is None:
        yield "there is no first count to start from."
        return
    for kind in ("", "delta_", "absolute_"):
        low, middle, high = (found[f"{kind}{name}"] for name in NAMES)
        if not low <= middle <= high:
            yield f"{kind or 'the '}quantiles are out of order."
    for name in NAMES:
        if found[f"absolute_{name}"] < x0:
            yield f"absolute_{name} is below the first count."
        if not _equal(found[f"absolute_{name}"], x0 + found[f"delta_{name}"]):
            yield f"absolute_{name} is not the first count and delta_{name}."
        if found[name] != found[f"absolute_{name}"]:
            yield f"{name} is not absolute_{name}."
    if not _equal(found["delta_p50"], math.expm1(found["y_p50"])):
        yield "delta_p50 is not expm1 of y_p50."


def _horizons(heads: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A count only grows, so no quantile of a later horizon lies below that of an earlier one."""
    whole = (head for head, found in heads.items() if all(found[name] is not None for name in NAMES))
    shown = sorted(whole, key=_horizon)
    for early, late in pairwise(shown):
        if target_of(early) == target_of(late) and any(heads[late][name] < heads[early][name] for name in NAMES):
            yield f"outputs.heads.{late}: it lies below {early}, which a count cannot."


def _horizon(head: str) -> tuple[str, int]:
    target, _, days = head.rpartition("_")
    return target, int(days.removesuffix("d"))


def _equal(one: float, other: float, tolerance: float = _TOLERANCE) -> bool:
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
