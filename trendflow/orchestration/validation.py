"""Validation of stored runs: what the store promises plus what the schemas demand."""

from __future__ import annotations

from trendflow.contracts.schema import validate_artifact, validate_document
from trendflow.orchestration.deployment import Deployment
from trendflow.storage.run_validation import Finding


def validate_run(deployment: Deployment, run_path: str) -> list[Finding]:
    """Everything that is wrong or odd with one stored run; empty for a clean one."""
    findings = deployment.results.validate_run(
        run_path, lambda arrays, meta: validate_artifact(deployment.schemas, arrays, meta)
    )
    if any(finding.code.startswith("manifest_") for finding in findings):
        return findings  # there is no readable manifest to hold against its schema
    manifest = deployment.results.read_manifest(run_path)
    problems = validate_document(deployment.schemas, "manifest_v1", manifest)
    return findings + [Finding("problem", "schema_invalid", "manifest.json", text) for text in problems]
