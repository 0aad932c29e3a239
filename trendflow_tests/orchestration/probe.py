"""A SYNTHETIC component that tests add to the graph of one deployment."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from types import ModuleType

from trendflow.components.base import ComponentInputs, ComponentSpec
from trendflow.components.registry import RegisteredComponent, Registry
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.graph import ComponentGraph, ProfileComponent, SamplingDecl
from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.schema_types import parse_artifact_schema
from trendflow.orchestration.deployment import Deployment

NAME = "probe"
SCHEMA = "probe_npz_v1"
FEATURE = "probe_value"


def value(number: float) -> Artifact:
    """What a probe gives back: one feature."""
    return Artifact(arrays=feature_arrays({FEATURE: number}))


def add_probe(
    deployment: Deployment,
    run: Callable[[ComponentInputs], Artifact],
    reads: tuple[str, ...] = (),
    *,
    beside: tuple[str, ...] = (),
    reference: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
    required: bool = True,
) -> None:
    """Let the starter profile hold the Segmenter, the components in `beside` and a probe that runs `run`."""
    graph, registry, schemas = deployment.graph, deployment.registry, deployment.schemas
    node = dataclasses.replace(
        graph.components["tempo_extractor"],
        name=NAME,
        reads=reads,
        sampling=SamplingDecl(min=10, target=20, max=40) if "frames" in reads else None,
        schema_version=SCHEMA,
        resources={"timeout_s": timeout_s},
    )
    profile = graph.profile("starter")
    components = {name: profile.components[name] for name in ("segmenter", *beside)}
    components[NAME] = ProfileComponent(required=required, params={}, sampling={}, line=1)
    edited = ComponentGraph(
        {**graph.components, NAME: node},
        {"starter": dataclasses.replace(profile, components=components, models={})},
        graph.absent,
        graph.source,
    )
    spec = ComponentSpec(NAME, "1.0.0", SCHEMA, hard=node.hard, reads=reads, reference=dict(reference or {}))
    module = ModuleType(NAME)
    vars(module).update(SPEC=spec, run=run)
    entries = {entry.spec.name: entry for entry in registry}
    entries[NAME] = RegisteredComponent(spec, node, module)
    schema = copy.deepcopy(dict(schemas.get("tempo_extractor_npz_v2").document))
    fields = {name: schema["fields"][name] for name in ("feature_names", "feature_values")}
    feature = {"tier": "model_facing", "unit": "1", "range": None, "formula": "what the test makes it"}
    schema |= {"schema_version": SCHEMA, "producer": NAME, "fields": fields, "features": {FEATURE: feature}}
    artifacts = {known.schema_version: known for known in schemas} | {SCHEMA: parse_artifact_schema(schema)}
    vars(deployment).update(
        graph=edited,
        registry=Registry(edited, entries),
        schemas=SchemaRegistry(schemas.directory, artifacts, schemas.documents),
    )
