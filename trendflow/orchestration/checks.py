"""The asset check of a component: what is stored is read back and held against the contracts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import ComponentNode
from trendflow.contracts.identity import IDENTITY_KEYS
from trendflow.contracts.manifest import find_row
from trendflow.contracts.schema import validate_artifact
from trendflow.orchestration.cache import stem_of
from trendflow.orchestration.runs import RunContext

VALID = "valid"
DESCRIPTION = (
    "The component ended without an error, and what is stored fits its schema, carries the run's identity, has valid "
    "indices and a consistent status."
)


@dataclass(frozen=True)
class CheckResult:
    """A result that is not `sound` stops everything downstream; a failed component that is stored soundly does not.

    `findings` maps aspect → finding.
    """

    passed: bool
    sound: bool
    findings: Mapping[str, str]


def check_stored(run: RunContext, node: ComponentNode) -> CheckResult:
    """Check the stored result of one component.

    One check covers five aspects: every check of every component costs Dagster three events in every run.
    """
    manifest = run.manifest()
    row = find_row(manifest, node.name)
    if row is None:
        return CheckResult(False, False, {"manifest": "The manifest has no row for it."})
    problems: dict[str, list[str]] = {"schema": [], "identity": [], "indices": [], "status": []}
    for entry in row["artifacts"]:
        stem = stem_of(entry)
        try:
            stored = run.deployment.results.read_artifact(
                run.run_path, node.name, stem, expected_sha256=entry["sha256"]
            )
        except TrendFlowError as error:
            if error.error_class == "transient":
                raise
            problems["schema"].append(f"{stem}: {error.message}")
            continue
        problems["schema"] += validate_artifact(run.deployment.schemas, stored.arrays, stored.meta)
        problems["identity"] += _identity_problems(run, manifest, stored.meta)
        problems["indices"] += _index_problems(stored.arrays)
        problems["status"] += _status_problems(row, stem, stored.meta)
    findings = {aspect: found[0] if found else "in order" for aspect, found in problems.items()}
    failed = row["status"] == "error"
    findings["outcome"] = f"{row['error_code']}: {row['error']}" if failed else row["status"]
    sound = not any(problems.values())
    return CheckResult(sound and not failed, sound, findings)


def _identity_problems(run: RunContext, manifest: Mapping[str, Any], meta: Mapping[str, Any]) -> list[str]:
    expected = run.identity.as_dict()
    problems = []
    for key in IDENTITY_KEYS:
        if not meta.get(key) == manifest["run"][key] == expected[key]:
            problems.append(f"{key} differs between artifact, manifest and request.")
    return problems


def _index_problems(arrays: Mapping[str, np.ndarray]) -> list[str]:
    problems = []
    if "frame_indices" in arrays:
        steps = np.diff(arrays["frame_indices"])
        if len(arrays["frame_indices"]) and (arrays["frame_indices"][0] < 0 or (steps <= 0).any()):
            problems.append("frame_indices are not sorted and unique.")
        if (np.diff(arrays["times_s"]) <= 0).any():
            problems.append("times_s is not strictly increasing.")
    if "segment_start_sec" in arrays and "segment_row_splits" not in arrays:
        start, end = arrays["segment_start_sec"], arrays["segment_end_sec"]
        if (np.diff(start) < 0).any() or (end <= start).any():
            problems.append("audio windows are not ordered.")
    return problems


def _status_problems(row: Mapping[str, Any], stem: str, meta: Mapping[str, Any]) -> list[str]:
    entry = next(item for item in row["artifacts"] if stem_of(item) == stem)
    problems = []
    if entry["content_digest"] != meta.get("content_digest"):
        problems.append(f"{stem}: the content digest differs between manifest and artifact.")
    for key in ("status", "empty_reason", "error_code"):
        if stem == row["name"] and row[key] != meta.get(key):
            problems.append(f"{key} differs between manifest and artifact.")
    return problems
