"""Reuse: the key of a piece of work, the search for an earlier result and the proof that it may be used."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from trendflow.contracts.canonical import content_digest, digest_of
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.keys import UpstreamDigests, idempotency_key, input_digest
from trendflow.contracts.manifest import content_digests, find_row
from trendflow.contracts.schema import validate_artifact
from trendflow.orchestration.runs import RunContext

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeyParts:
    """Everything that decides whether a result may be reused, part by part."""

    platform_id: str
    video_id: str
    component: str
    config_hash: str
    sampling_policy_version: str
    producer_version: str
    schema_version: str
    model_signature: str
    source_media: str
    document: str | None
    reference: Mapping[str, str]
    upstream: UpstreamDigests

    @property
    def input_digest(self) -> str:
        return input_digest(
            source_sha256=self.source_media,
            document_digest=self.document,
            reference=self.reference,
            upstream=self.upstream,
        )

    @property
    def key(self) -> str:
        return idempotency_key(
            platform_id=self.platform_id,
            video_id=self.video_id,
            component=self.component,
            config_hash=self.config_hash,
            sampling_policy_version=self.sampling_policy_version,
            producer_version=self.producer_version,
            schema_version=self.schema_version,
            model_signature=self.model_signature,
            input_digest=self.input_digest,
        )

    def flat(self) -> dict[str, str]:
        """Part name → printable value, one row per part a person may want to compare."""
        rows: dict[str, str] = {}
        for name, value in asdict(self).items():
            if isinstance(value, dict):
                for sub, digest in sorted(value.items()):
                    rows[f"{name}:{sub}"] = digest if isinstance(digest, str) else digest_of(digest)
            else:
                rows[name] = "none" if value is None else str(value)
        return rows


@dataclass(frozen=True)
class Candidate:
    """An earlier result that passed every test, with its artifacts by file stem."""

    run_path: str
    run: Mapping[str, Any]
    """The run block of its manifest."""
    row: Mapping[str, Any]
    artifacts: Mapping[str, tuple[dict[str, np.ndarray], dict[str, Any]]] = field(repr=False)

    @property
    def run_id(self) -> str:
        return str(self.run["run_id"])

    @property
    def digests(self) -> dict[str, str]:
        return content_digests(self.row)


def stem_of(artifact: Mapping[str, Any]) -> str:
    return str(artifact["path"]).rpartition("/")[2].removesuffix(".npz")


def upstream_digests(run: RunContext, component: str, manifest: Mapping[str, Any]) -> UpstreamDigests:
    """Content digests of the enabled dependencies, from their manifest rows.

    A failed or skipped soft dependency counts as the word `error`. Raises `dependency_missing` when one has no row, or
    when a hard one failed.
    """
    node = run.deployment.graph.components[component]
    skipped = {entry["name"] for entry in manifest["run"]["skipped"]}
    found: dict[str, Mapping[str, str] | Literal["error"]] = {}
    for name in run.deployment.graph.active_deps(run.profile_name, component):
        row = find_row(manifest, name)
        failed = row is None or row["status"] == "error"
        if failed and not (name in node.soft and (row is not None or name in skipped)):
            raise TrendFlowError(
                "dependency_missing", f"{component} needs {name}, which has no usable result.", kind="artifact"
            )
        found[name] = "error" if row is None or failed else content_digests(row)
    return found


def key_parts(run: RunContext, component: str, source_sha256: str, upstream: UpstreamDigests) -> KeyParts:
    """The key of `component` in this run. A component that reads the document depends on its digest, no other does."""
    spec = run.deployment.registry[component].spec
    return KeyParts(
        platform_id=run.identity.platform_id,
        video_id=run.identity.video_id,
        component=component,
        config_hash=run.identity.config_hash,
        sampling_policy_version=run.identity.sampling_policy_version,
        producer_version=spec.producer_version,
        schema_version=spec.schema_version,
        model_signature=run.planned_signature(component),
        source_media=source_sha256,
        document=run.document_digest if "document" in spec.reads else None,
        reference=_references(run, component),
        upstream=upstream,
    )


def _references(run: RunContext, component: str) -> dict[str, str]:
    """sha256 of what a component reads besides its upstream results.

    A declaration counts on its own: two versions of a dependency may fail alike or give equal values.
    """
    spec = run.deployment.registry[component].spec
    found = dict(spec.reference)
    if "declarations" in spec.reads:
        declared = run.deployment.registry.declarations(run.profile_name, component, run.deployment.schemas)
        found |= {f"declaration/{name}": declaration.digest for name, declaration in declared.items()}
    return found


def find_candidate(run: RunContext, component: str, key: str, *, even_if_forced: bool = False) -> Candidate | None:
    """The first of `candidates`, or None."""
    return next(candidates(run, component, key, even_if_forced=even_if_forced), None)


def candidates(run: RunContext, component: str, key: str, *, even_if_forced: bool = False) -> Iterator[Candidate]:
    """Accepted earlier results for `key`: this run's own, the indexed one, then the others, newest first.

    Any doubt about a candidate rejects it, with a log line. A run submitted with force_recompute takes results of other
    runs only with `even_if_forced` (to compare with, not to reuse); what it computed itself before it was interrupted
    stays good.
    """
    deployment = run.deployment
    own = deployment.results.read_manifest(run.run_path)
    row = _row_with_key(own, component, key) if own else None
    forced = run.force_recompute and not even_if_forced
    paths = [run.run_path] if row is not None and not (forced and row["cache_hit"]) else []
    indexed = None if forced else indexed_entry(run, component, key)
    if indexed is not None:
        paths.append(str(indexed["run_path"]))
    for path in dict.fromkeys(paths):
        candidate = _accept(run, component, key, path)
        if candidate is not None:
            yield candidate
        elif indexed is not None and path == indexed["run_path"]:
            run.refuted[key] = indexed
    if forced:
        return
    # The index is an accelerator: what it lost or never knew is still in the manifests.
    for manifest in deployment.results.manifests(run.identity.platform_id, run.identity.video_id):
        block = manifest["run"]
        path = f"{block['platform_id']}/{block['video_id']}/{block['run_id']}"
        if path not in paths and _row_with_key(manifest, component, key):
            candidate = _accept(run, component, key, path)
            if candidate is not None:
                yield candidate


def indexed_entry(run: RunContext, component: str, key: str) -> dict[str, Any] | None:
    """What the index knows of a key. An unreadable entry is as good as none: everything in it is in the manifests."""
    try:
        return run.deployment.index.lookup(key)
    except TrendFlowError as exc:
        if exc.error_class == "transient":
            raise
        log.warning("cache_check_failed component=%s object=index error_code=%s", component, exc.error_code)
        run.recorder.cache_check_failed(component, exc.error_code)
        return None


def _row_with_key(manifest: Mapping[str, Any], component: str, key: str) -> dict[str, Any] | None:
    row = find_row(manifest, component)
    return row if row is not None and row["idempotency_key"] == key else None


def _accept(run: RunContext, component: str, key: str, run_path: str) -> Candidate | None:
    try:
        return _verified(run, component, key, run_path)
    except TrendFlowError as exc:
        if exc.error_class == "transient":
            raise
        log.warning("cache_check_failed component=%s error_code=%s", component, exc.error_code)
        run.recorder.cache_check_failed(component, exc.error_code)
        return None


def _verified(run: RunContext, component: str, key: str, run_path: str) -> Candidate | None:
    deployment = run.deployment
    manifest = deployment.results.read_manifest(run_path)
    row = _row_with_key(manifest, component, key) if manifest else None
    if manifest is None or row is None or row["status"] not in ("ok", "empty") or not row["artifacts"]:
        return None
    artifacts: dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]] = {}
    for entry in row["artifacts"]:
        stem = stem_of(entry)
        stored = deployment.results.read_artifact(run_path, component, stem, expected_sha256=entry["sha256"])
        meta = stored.meta
        digest = content_digest(component, meta["schema_version"], meta["status"], meta["empty_reason"], stored.arrays)
        if not digest == entry["content_digest"] == meta["content_digest"]:
            raise TrendFlowError("artifact_validation_failed", f"The content digest of {component} does not match.")
        problems = validate_artifact(deployment.schemas, stored.arrays, meta)
        if problems:
            raise TrendFlowError("artifact_validation_failed", f"A stored {component} is not valid: {problems[0]}.")
        artifacts[stem] = (dict(stored.arrays), dict(meta))
    return Candidate(run_path, manifest["run"], row, artifacts)
