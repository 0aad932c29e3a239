"""SYNTHETIC components that tests put into the graph of one deployment."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType

from trendflow.components.base import ComponentInputs, ComponentSpec
from trendflow.components.registry import RegisteredComponent, Registry
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.graph import SEGMENTER, ProfileComponent, SamplingDecl
from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.schema_types import ArtifactSchema, parse_artifact_schema
from trendflow.orchestration.deployment import Deployment

NAME = "probe"
FEATURE = "probe_value"


def value(number: float) -> Artifact:
    """What a probe gives back: one feature."""
    return Artifact(arrays=feature_arrays({FEATURE: number}))


@dataclass(frozen=True)
class Probe:
    """What a probe does, what it depends on besides the Segmenter, and what the profile says of it."""

    run: Callable[[ComponentInputs], Artifact]
    reads: tuple[str, ...] = ()
    hard: tuple[str, ...] = ()
    soft: tuple[str, ...] = ()
    reference: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 60.0
    required: bool = True


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
    probe = Probe(run, reads, reference=reference or {}, timeout_s=timeout_s, required=required)
    add_probes(deployment, {NAME: probe}, beside)


def add_probes(deployment: Deployment, probes: Mapping[str, Probe], beside: tuple[str, ...] = ()) -> None:
    """Let the starter profile hold the Segmenter, the components in `beside` and these probes, in this order."""
    graph, registry, schemas = deployment.graph, deployment.registry, deployment.schemas
    profile = graph.profile("starter")
    enabled = {name: profile.components[name] for name in (SEGMENTER, *beside)}
    nodes = dict(graph.components)
    modules: dict[str, ModuleType] = {}
    known = {schema.schema_version: schema for schema in schemas}
    for name, probe in probes.items():
        schema = _schema(name, schemas)
        known[schema.schema_version] = schema
        nodes[name] = dataclasses.replace(
            graph.components["tempo_extractor"],
            name=name,
            hard=(SEGMENTER, *probe.hard),
            soft=probe.soft,
            reads=probe.reads,
            sampling=SamplingDecl(min=10, target=20, max=40) if "frames" in probe.reads else None,
            schema_version=schema.schema_version,
            resources={"timeout_s": probe.timeout_s},
        )
        spec = ComponentSpec(
            name,
            "1.0.0",
            schema.schema_version,
            hard=nodes[name].hard,
            soft=probe.soft,
            reads=probe.reads,
            reference=dict(probe.reference),
        )
        modules[name] = ModuleType(name)
        vars(modules[name]).update(SPEC=spec, run=probe.run)
        enabled[name] = ProfileComponent(required=probe.required, params={}, sampling={}, line=1)
    edited = dataclasses.replace(
        graph,
        components=nodes,
        profiles={"starter": dataclasses.replace(profile, components=enabled, models={})},
    )
    entries = {entry.spec.name: entry for entry in registry}
    entries |= {
        name: RegisteredComponent(vars(module)["SPEC"], nodes[name], module) for name, module in modules.items()
    }
    vars(deployment).update(
        graph=edited,
        registry=Registry(edited, entries),
        schemas=SchemaRegistry(schemas.directory, known, schemas.documents),
    )


def _schema(name: str, schemas: SchemaRegistry) -> ArtifactSchema:
    """The schema of a probe: one feature."""
    schema = copy.deepcopy(dict(schemas.get("tempo_extractor_npz_v2").document))
    fields = {key: schema["fields"][key] for key in ("feature_names", "feature_values")}
    feature = {"tier": "model_facing", "unit": "1", "range": None, "formula": "what the test makes it"}
    schema |= {"schema_version": f"{name}_npz_v1", "producer": name, "fields": fields, "features": {FEATURE: feature}}
    return parse_artifact_schema(schema)
