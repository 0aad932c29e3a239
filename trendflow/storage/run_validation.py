"""Does a stored run say one thing everywhere? Used by `validate`, by crash tests and before anything is trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trendflow.contracts.canonical import content_digest
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import IDENTITY_KEYS
from trendflow.contracts.manifest import COPIED_FROM_META, artifact_path
from trendflow.contracts.meta import REQUIRED_META

if TYPE_CHECKING:
    from trendflow.storage.result_store import ResultStore

ArtifactCheck = Callable[[Mapping[str, np.ndarray], Mapping[str, Any]], list[str]]
"""An extra check of one artifact, such as its schema; returns problems."""


@dataclass(frozen=True)
class Finding:
    """One observation. A `problem` makes the run invalid, a `notice` does not. `path` is relative to the run folder."""

    severity: Literal["problem", "notice"]
    code: str
    path: str
    message: str


def validate_run(results: ResultStore, run_path: str, check: ArtifactCheck | None = None) -> list[Finding]:
    """Compare manifest, artifacts and folder of one run; an empty list or notices only mean it is valid.

    Every row: artifacts present, size, sha256 and content digest equal, identity equal to the manifest's and to the
    folder, meta complete, row equal to the meta of the main artifact. Objects without a row are orphans (notice).
    """
    try:
        manifest = results.read_manifest(run_path)
    except TrendFlowError as exc:
        if exc.error_class == "transient":
            raise
        return [_problem("manifest_invalid", "manifest.json", exc.message)]
    if manifest is None:
        return [_problem("manifest_missing", "manifest.json", "The run has no manifest.")]
    findings = list(_identity_findings(manifest["run"], run_path))
    for row in manifest["components"]:
        findings += _row_findings(results, run_path, manifest["run"], row, check)
    for path in results.orphans(run_path):
        if path.endswith(".json"):
            findings.append(_problem("unexpected_json", path, "Only manifest.json may be JSON in a run folder."))
        else:
            findings.append(Finding("notice", "orphan", path, f"{path} is named by no manifest row."))
    return findings


def _problem(code: str, path: str, message: str) -> Finding:
    return Finding("problem", code, path, message)


def _identity_findings(run: Mapping[str, Any], run_path: str) -> Iterator[Finding]:
    if f"{run['platform_id']}/{run['video_id']}/{run['run_id']}" != run_path:
        yield _problem("identity_mismatch", "manifest.json", "The manifest belongs to another run folder.")


def _row_findings(
    results: ResultStore, run_path: str, run: Mapping[str, Any], row: Mapping[str, Any], check: ArtifactCheck | None
) -> Iterator[Finding]:
    name = row["name"]
    main = artifact_path(name, name)
    if main not in {artifact["path"] for artifact in row["artifacts"]}:
        yield _problem("artifact_missing", main, f"The row of {name} does not name its main artifact.")
    for artifact in row["artifacts"]:
        path = artifact["path"]
        try:
            yield from _artifact_findings(results, run_path, run, row, artifact, check)
        except TrendFlowError as exc:
            if exc.error_class == "transient":
                raise
            code = "artifact_missing" if exc.error_code == "dependency_missing" else "artifact_invalid"
            yield _problem(code, path, exc.message)


def _artifact_findings(
    results: ResultStore,
    run_path: str,
    run: Mapping[str, Any],
    row: Mapping[str, Any],
    artifact: Mapping[str, Any],
    check: ArtifactCheck | None,
) -> Iterator[Finding]:
    name, path = row["name"], artifact["path"]
    stem = path.rpartition("/")[2].rpartition(".")[0]
    if artifact["type"] == "npy":
        array = results.read_array(run_path, name, stem, expected_sha256=artifact["sha256"])
        digest = content_digest(name, artifact["schema_version"], "ok", None, {stem: array})
        if digest != artifact["content_digest"]:
            yield _problem("content_mismatch", path, "The content digest of the array differs from the manifest's.")
        return
    stored = results.read_artifact(run_path, name, stem, expected_sha256=artifact["sha256"])
    meta = stored.meta
    missing = [key for key in REQUIRED_META if key not in meta]
    if missing:
        yield _problem("meta_incomplete", path, f"The meta lacks {missing}.")
        return
    if stored.size != artifact["size"]:
        yield _problem("size_mismatch", path, "The size differs from the manifest's.")
    digest = content_digest(name, meta["schema_version"], meta["status"], meta["empty_reason"], stored.arrays)
    if not digest == meta["content_digest"] == artifact["content_digest"]:
        yield _problem("content_mismatch", path, "Arrays, meta and manifest disagree on the content digest.")
    for key in IDENTITY_KEYS:
        if meta[key] != run[key]:
            yield _problem("identity_mismatch", path, f"{key} differs between artifact and manifest.")
    if meta["producer"] != name or meta["schema_version"] != artifact["schema_version"]:
        yield _problem("identity_mismatch", path, "Producer or schema version differ between artifact and manifest.")
    if stem == name:
        for key in COPIED_FROM_META:
            if row[key] != meta[key]:
                yield _problem("row_mismatch", path, f"{key} differs between manifest row and artifact.")
    if meta["status"] == "error" and stored.arrays:
        yield _problem("artifact_invalid", path, "An error artifact holds arrays.")
    for problem in check(stored.arrays, meta) if check else ():
        yield _problem("schema_invalid", path, problem)
