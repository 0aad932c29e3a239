"""Why an artifact was reused or recomputed, key part by key part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import content_digests, find_row
from trendflow.orchestration import cache
from trendflow.orchestration.runs import RunContext


@dataclass(frozen=True)
class PartComparison:
    """One part of the key in this run and in the run it is compared with."""

    part: str
    here: str
    there: str | None

    @property
    def same(self) -> bool:
        return self.here == self.there


@dataclass(frozen=True)
class Explanation:
    """`verdict` is one sentence; `compared_with` is the run id of the other side, if there is one."""

    component: str
    outcome: str
    verdict: str
    compared_with: str | None
    parts: list[PartComparison]


def explain(run: RunContext, component: str) -> Explanation:
    """Compare a component's key in this run with the run it came from, or with the newest earlier one.

    Raises `dependency_missing` when this run has no result of the component.
    """
    manifest = run.manifest()
    row = find_row(manifest, component)
    if row is None:
        raise TrendFlowError("dependency_missing", f"This run holds no result of {component}.", kind="artifact")
    here = _parts(run, component, manifest, row)
    if row["status"] == "error":
        verdict = f"It failed with {row['error_code']}; an error is never reused."
        return Explanation(component, "error", verdict, None, [PartComparison(k, v, None) for k, v in here.items()])
    other = _other_run(run, component, row)
    if other is None and row["cache_hit"]:
        source = row["reused_from"]["run_id"]
        verdict = f"It was reused from run {source}, which has been deleted since."
        return Explanation(component, "reused", verdict, None, [PartComparison(k, v, None) for k, v in here.items()])
    if other is None:
        verdict = "It was computed: no earlier run of this video holds a result of this component."
        return Explanation(component, "computed", verdict, None, [PartComparison(k, v, None) for k, v in here.items()])
    other_row = find_row(other, component)
    there = _parts(run, component, other, other_row or {})
    parts = [PartComparison(name, here.get(name, "absent"), there.get(name, "absent")) for name in {**here, **there}]
    other_id = str(other["run"]["run_id"])
    changed = [part.part for part in parts if not part.same]
    if row["cache_hit"]:
        return Explanation(
            component, "reused", f"It was reused from run {other_id}: every part is equal.", other_id, parts
        )
    if changed:
        verdict = f"It was recomputed because {', '.join(changed)} differ from run {other_id}."
    elif run.force_recompute:
        verdict = "It was recomputed because the run was submitted with force_recompute; every part is equal."
    else:
        verdict = (
            f"It was recomputed although every part equals run {other_id}: that result was not there yet, or did not "
            "pass the checks (missing, damaged or invalid)."
        )
    return Explanation(component, "computed", verdict, other_id, parts)


def _other_run(run: RunContext, component: str, row: Mapping[str, Any]) -> dict[str, Any] | None:
    results = run.deployment.results
    if row["reused_from"]:
        path = f"{run.identity.platform_id}/{run.identity.video_id}/{row['reused_from']['run_id']}"
        return results.read_manifest(path)
    for manifest in results.manifests(run.identity.platform_id, run.identity.video_id):
        found = find_row(manifest, component)
        earlier = found is not None and found["status"] != "error" and found["finished_at"] <= row["started_at"]
        if manifest["run"]["run_id"] != run.identity.run_id and earlier:
            return manifest
    return None


def _parts(run: RunContext, component: str, manifest: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, str]:
    """The key parts as they stood when `row` was written, read back from its manifest."""
    upstream: dict[str, Any] = {}
    # Every declared dependency that has a row was enabled; a run of another profile may have had fewer.
    for name in run.deployment.graph.components[component].deps:
        found = find_row(manifest, name)
        if found is not None:
            upstream[name] = "error" if found["status"] == "error" else content_digests(found)
    block = manifest["run"]
    parts = cache.KeyParts(
        platform_id=block["platform_id"],
        video_id=block["video_id"],
        component=component,
        config_hash=block["config_hash"],
        sampling_policy_version=block["sampling_policy_version"],
        producer_version=row["producer_version"],
        schema_version=row["schema_version"],
        model_signature=row["model_signature"],
        source_media=block["source"]["sha256"] or "unknown",
        document=block["document_digest"],
        reference=dict(run.deployment.registry[component].spec.reference),
        upstream=upstream,
    )
    rows = parts.flat()
    rows["idempotency_key"] = str(row["idempotency_key"])
    return rows
