"""Holds a component's artifact against its machine schema, as the wrapper does."""

from __future__ import annotations

from functools import cache
from types import ModuleType

from trendflow.contracts.artifact import Artifact
from trendflow.contracts.canonical import content_digest
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.meta import build_meta
from trendflow.contracts.schema import SchemaRegistry, validate_artifact

_IDENTITY = RunIdentity("upload", "clip_1", "run_1", "c" * 64, "sampling_v1", "0.1.0")


@cache
def _registry() -> SchemaRegistry:
    return SchemaRegistry.load()


def schema_problems(component: ModuleType, artifact: Artifact) -> list[str]:
    """What is wrong with the artifact, one sentence each."""
    spec = component.SPEC
    digest = content_digest(spec.name, spec.schema_version, artifact.status, artifact.empty_reason, artifact.arrays)
    meta = build_meta(
        _IDENTITY,
        artifact,
        producer=spec.name,
        producer_version=spec.producer_version,
        schema_version=spec.schema_version,
        idempotency_key="1" * 64,
        input_digest="2" * 64,
        content_digest=digest,
    )
    return validate_artifact(_registry(), artifact.arrays, meta)
