"""The reference of all components as one Markdown page, from graph, code, schemas and constants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from trendflow.components.code_facts import CodeFacts, code_facts
from trendflow.components.registry import RegisteredComponent, Registry
from trendflow.contracts.graph import ComponentGraph, ComponentNode, frame_budget
from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.schema_docs import markdown_table, schema_parts
from trendflow.contracts.thresholds import Thresholds

_HEAD = """\
# Components

Written by `trendflow components docs` from `component_graph.yaml`, the code, the schemas and the constants; a test
keeps it current.

- A *model-facing* value is meant as input of a model, an *analytics* value for people, a *debug* value for engineers.
- NaN means that something was not measured. Its reason stands in `absent_features` of the artifact's meta; an artifact
  without any measurement has status `empty` and an `empty_reason`.
- Symbols in shapes that occur more than once in an artifact have one size throughout.
- Statistics run over finite values, and without one they are NaN. Percentiles interpolate linearly; standard deviations
  and variances divide by the number of values and need two; a share of nothing is NaN.
- *Duration* is that of the video in full precision, `duration_sec` of the frames folder's `video/metadata.json`. Of n
  equal parts of a video (thirds, eighths) a time t lies in number ⌊n·t / duration⌋ + 1, and its end in the last one.
- *Reliable motion* at a frame is `motion_norm_per_sec_mean` in its row of `core_optical_flow`, NaN where
  `pair_reliable_mask` is false.
- Audio windows are the samples round(start · rate) … round(end · rate) − 1 of the file.
- How a model wants its input, and the file it is, stands in its entry of `models/catalogue.yaml`; what the words there
  mean, under Method.
- Errors are those a component raises itself. Whatever runs can also end with `timeout`, `out_of_memory`, `cancelled` or
  `internal_error`; what is read from a store with `storage_unavailable`; what needs a model with `weights_missing`,
  `model_load_failed` or `device_unavailable`; and a result that breaks its schema with `artifact_validation_failed`."""


def render_components(registry: Registry, schemas: SchemaRegistry, thresholds: Thresholds) -> str:
    """The page: an overview, then one chapter per component in topological order."""
    overview = markdown_table(
        ("component", "what it measures", "unit", "schema", "profiles"),
        (
            (
                f"[{entry.node.name}](#{entry.node.name})",
                entry.node.description,
                entry.node.unit,
                f"`{entry.node.schema_version}`",
                ", ".join(_profiles(registry.graph, entry.node.name)) or "none",
            )
            for entry in registry
        ),
    )
    chapters = ("\n\n".join(_chapter(entry, registry.graph, schemas, thresholds)) for entry in registry)
    return "\n\n".join((_HEAD, overview, *_drafts(registry.graph), *chapters)) + "\n"


def _drafts(graph: ComponentGraph) -> Iterator[str]:
    """What is decided but has no code yet: the drafted profiles and components with their edges."""
    drafts = graph.drafts
    if not drafts.components:
        return
    yield "## Drafted, not part of this release"
    yield "Edges and roles are decided and checked; there is no code, and a drafted profile cannot be used."
    yield markdown_table(
        ("profile", "what it is for", "extends", "still missing"),
        (
            (f"`{name}`", profile.description, f"`{profile.extends}`", f"{len(drafts.missing(name))} components")
            for name, profile in drafts.profiles.items()
        ),
    )
    yield markdown_table(
        ("component", "what it will measure", "needs", "uses if there", "model roles", "profiles"),
        (
            (
                f"`{node.name}`",
                node.description,
                _code(node.hard),
                "everything that measures" if node.soft_is_all else _code(node.soft),
                _code(node.roles),
                ", ".join(name for name, profile in drafts.profiles.items() if node.name in profile.components),
            )
            for node in drafts.components.values()
        ),
    )


def _chapter(
    entry: RegisteredComponent, graph: ComponentGraph, schemas: SchemaRegistry, thresholds: Thresholds
) -> Iterator[str]:
    node, facts = entry.node, code_facts(entry.node.name, entry.module)
    yield f"## {node.name}"
    yield facts.purpose[:1].upper() + facts.purpose[1:] or node.description
    yield markdown_table(("", ""), _declaration(entry, graph))
    if facts.result:
        yield "### Result"
        yield facts.result
    if facts.methods:
        yield "### Method"
        for topic, told in facts.methods:
            if topic:
                yield f"*{topic}*"
            yield "\n".join(f"- {method[:1].upper()}{method[1:]}" for method in told)
    if entry.spec.params:
        yield "### Parameters"
        yield markdown_table(
            ("parameter", "type", "default", "meaning"),
            (
                (f"`{name}`", param.value_type.__name__ + " or null" * param.nullable, _value(param.default), param.doc)
                for name, param in entry.spec.params.items()
            ),
        )
    yield from _constants(facts, thresholds)
    yield from _outcomes(facts)
    for stem, version in {node.name: node.schema_version, **node.extra_artifacts}.items():
        yield f"### Artifact `{stem}`: `{version}`"
        if stem != node.name:
            yield schemas.get(version).description
        yield from schema_parts(schemas.get(version), "####")


def _declaration(entry: RegisteredComponent, graph: ComponentGraph) -> Iterator[tuple[str, str]]:
    node = entry.node
    yield "version", f"`{entry.spec.producer_version}`"
    yield "unit", node.unit
    yield "needs", _code(node.hard)
    if node.soft:
        yield (
            "uses if there",
            ", ".join(
                f"`{name}` (not part of this release)" if name in graph.drafts.components else f"`{name}`"
                for name in node.soft
            ),
        )
    yield "reads", _code(node.reads)
    yield "samples", _sampling(node)
    for title, roles in (("model roles", node.required_roles), ("optional roles", node.optional_roles)):
        if roles:
            yield title, "; ".join(_role(graph, node, role) for role in roles)
    if entry.spec.reference:
        yield "reference files", _code(sorted(entry.spec.reference))
    yield "resources", ", ".join(f"{name} {_value(value)}" for name, value in node.resources.items())
    yield "micro-batches across videos", "allowed, not formed yet" if node.cross_video_batching else "never"
    yield "profiles", "; ".join(_membership(graph, node)) or "none"


def _sampling(node: ComponentNode) -> str:
    decl = node.sampling
    if decl is None:
        return "–"
    if decl.family is not None:
        return f"audio windows of the family `{decl.family}`"
    text = f"{decl.target} frames, at least {decl.min}, at most {decl.max}"
    if decl.group is not None:
        return f"{text}; the same frames as the group `{decl.group}`"
    return f"{text}; out of the frames of `{decl.parent}`" if decl.parent is not None else text


def _role(graph: ComponentGraph, node: ComponentNode, role: str) -> str:
    """A role with the models that serve it, by profile."""
    served = [
        f"`{profile.models[role]}` in {name}{' on triton' if profile.runtimes.get(role) == 'triton' else ''}"
        for name, profile in graph.profiles.items()
        if role in profile.models and node.name in profile.components
    ]
    return f"`{role}` ({', '.join(served) or 'in no profile'})"


def _profiles(graph: ComponentGraph, component: str) -> list[str]:
    return [name for name, profile in graph.profiles.items() if component in profile.components]


def _membership(graph: ComponentGraph, node: ComponentNode) -> Iterator[str]:
    """Where the component runs, whether its failure fails the run, and what the profile changes."""
    declared = None if node.sampling is None else (node.sampling.min, node.sampling.target, node.sampling.max)
    for name in _profiles(graph, node.name):
        entry = graph.profile(name).components[node.name]
        budget = frame_budget(node, entry)
        changes = [f"{key} = {_value(value)}" for key, value in entry.params.items()]
        if budget is not None and budget != declared:
            changes.append(f"{budget[1]} frames, at least {budget[0]}, at most {budget[2]}")
        yield f"{name} ({', '.join(['required' if entry.required else 'optional', *changes])})"


def _constants(facts: CodeFacts, thresholds: Thresholds) -> Iterator[str]:
    if not facts.threshold_sections:
        return
    yield "### Constants"
    yield f"From `{thresholds.file_name}`."
    yield markdown_table(
        ("constant", "value", "unit", "where it comes from"),
        (
            (f"`{section}.{name}`", f"{constant.value:g}", constant.unit, constant.provenance)
            for section in facts.threshold_sections
            for name, constant in thresholds.constants[section].items()
        ),
    )


def _outcomes(facts: CodeFacts) -> Iterator[str]:
    yield "### Empty results and errors"
    yield f"Empty reasons: {_code(facts.empty_reasons)}." if facts.empty_reasons else "Never empty."
    if facts.errors:
        yield markdown_table(("error", "message"), ((f"`{code}`", message) for code, message in facts.errors))


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words) or "–"


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value:g}`" if isinstance(value, int | float) else f"`{value}`"
