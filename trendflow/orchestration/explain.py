"""Why an artifact was reused or recomputed, key part by key part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import content_digests, find_row
from trendflow.orchestration import cache
from trendflow.orchestration.runs import RunContext

KEY = "idempotency_key"
ABSENT, UNREADABLE, UNKNOWN = "absent", "unreadable", "unknown"


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

    def alone(outcome: str, verdict: str) -> Explanation:
        return Explanation(component, outcome, verdict, None, [PartComparison(k, v, None) for k, v in here.items()])

    if row["status"] == "error":
        return alone("error", f"It failed with {row['error_code']}; an error is never reused.")
    other = _other_run(run, component, row)
    if other is None and row["cache_hit"]:
        return alone("reused", f"It was reused from run {row['reused_from']['run_id']}, which has been deleted since.")
    if other is None:
        return alone("computed", "It was computed: no earlier run of this video holds a result of this component.")
    other_manifest, other_row = other
    there = _parts(run, component, other_manifest, other_row)
    parts = [PartComparison(name, here.get(name, ABSENT), there.get(name, ABSENT)) for name in {**here, **there}]
    other_id = str(other_manifest["run"]["run_id"])
    if row["cache_hit"]:
        verdict = f"It was reused from run {other_id}: every part is equal."
        return Explanation(component, "reused", verdict, other_id, parts)
    return Explanation(component, "computed", _why_computed(run, parts, other_id), other_id, parts)


def _why_computed(run: RunContext, parts: list[PartComparison], other_id: str) -> str:
    # The key differs whenever a part does, so it is no reason of its own.
    changed = [part.part for part in parts if not part.same and part.part != KEY]
    if changed:
        verb = "differs" if len(changed) == 1 else "differ"
        return f"It was recomputed because {', '.join(changed)} {verb} from run {other_id}."
    if run.force_recompute:
        return "It was recomputed because the run was submitted with force_recompute; every part is equal."
    return (
        f"It was recomputed although every part equals run {other_id}: that result was not there yet, or did not "
        "pass the checks (missing, damaged or invalid)."
    )


def _other_run(
    run: RunContext, component: str, row: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Manifest and row to compare with: where the result came from, else the newest one that was there before it."""
    results = run.deployment.results
    if row["reused_from"]:
        path = f"{run.identity.platform_id}/{run.identity.video_id}/{row['reused_from']['run_id']}"
        manifest = results.read_manifest(path)
        found = find_row(manifest, component) if manifest is not None else None
        return None if manifest is None or found is None else (manifest, found)
    for manifest in results.manifests(run.identity.platform_id, run.identity.video_id):
        found = find_row(manifest, component)
        if manifest["run"]["run_id"] == run.identity.run_id or found is None:
            continue
        if found["status"] != "error" and found["finished_at"] <= row["started_at"]:
            return manifest, found
    return None


def _parts(run: RunContext, component: str, manifest: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, str]:
    """The key parts as they stood when `row` was written, read back from what was stored with it."""
    block = manifest["run"]
    node = run.deployment.graph.components[component]
    reference = _reference(run, component, block)
    parts = cache.KeyParts(
        platform_id=block["platform_id"],
        video_id=block["video_id"],
        component=component,
        config_hash=block["config_hash"],
        sampling_policy_version=block["sampling_policy_version"],
        producer_version=row["producer_version"],
        schema_version=row["schema_version"],
        model_signature=row["model_signature"],
        source_media=block["source"]["sha256"] or UNKNOWN,
        document=block["document_digest"] if "document" in node.reads else None,
        reference=reference or {},
        upstream=_upstream(manifest, node.deps),
    )
    rows = parts.flat()
    if reference is None:
        rows["reference"] = UNREADABLE
    rows[KEY] = str(row[KEY])
    return rows


def _upstream(manifest: Mapping[str, Any], deps: tuple[str, ...]) -> dict[str, Any]:
    """Digests of the dependencies that were enabled: those with a row, and those that were skipped."""
    skipped = {entry["name"] for entry in manifest["run"]["skipped"]}
    found: dict[str, Any] = {}
    for name in deps:
        row = find_row(manifest, name)
        if row is not None:
            found[name] = "error" if row["status"] == "error" else content_digests(row)
        elif name in skipped:
            found[name] = "error"
    return found


def _reference(run: RunContext, component: str, block: Mapping[str, Any]) -> Mapping[str, str] | None:
    """The reference files as the artifact's meta recorded them; None when the artifact cannot be read any more."""
    path = f"{block['platform_id']}/{block['video_id']}/{block['run_id']}"
    try:
        stored = run.deployment.results.read_artifact(path, component, names=())
    except TrendFlowError as error:
        if error.error_class == "transient":
            raise
        return None
    return dict(stored.meta.get("db_digest", {}))
