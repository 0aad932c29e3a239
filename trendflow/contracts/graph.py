"""`component_graph.yaml`: what it says, and the checks that need no code.

A broken file is refused with `config_invalid` and the line to look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph_checks import (
    AUDIO_FAMILIES,
    Reader,
    fault,
    read_document,
    read_models,
    read_policy,
    read_resources,
)
from trendflow.contracts.graph_drafts import Drafts, read_draft_components, read_draft_profiles
from trendflow.contracts.graph_nodes import Node, read_node, topological, with_all_soft
from trendflow.contracts.vocab import Runtime

GRAPH_VERSION = "component_graph_v1"
SEGMENTER = "segmenter"
READS = frozenset({"frames", "audio", "audio_full", "dense", "document", "declarations"})
UNITS = frozenset({"frame", "frame_pair", "segment", "clip", "face", "document", "video"})
BUDGET_OVERRIDES = ("min_frames", "target_frames", "max_frames")


@dataclass(frozen=True)
class SamplingDecl:
    """What a component asks of the Segmenter: a frame budget, or an audio family."""

    min: int | None = None
    target: int | None = None
    max: int | None = None
    group: str | None = None
    parent: str | None = None
    family: str | None = None


@dataclass(frozen=True, kw_only=True)
class ComponentNode(Node):
    """One component of the graph that has code."""

    stage: str
    reads: tuple[str, ...]
    unit: str
    sampling: SamplingDecl | None
    schema_version: str
    extra_artifacts: Mapping[str, str]
    resources: Mapping[str, Any]
    cross_video_batching: bool
    tier: int

    @property
    def timeout_s(self) -> float:
        return float(self.resources.get("timeout_s", 1800))


@dataclass(frozen=True)
class ProfileComponent:
    required: bool
    params: Mapping[str, Any]
    sampling: Mapping[str, int]
    line: int
    param_lines: Mapping[str, int] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Profile:
    """Which components run, with which parameters and models."""

    name: str
    description: str
    components: Mapping[str, ProfileComponent]
    models: Mapping[str, str]
    policy: Mapping[str, bool]
    sampling_policy_version: str
    prompts_version: str
    thresholds_version: str
    line: int
    model_lines: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Line that maps each role, in this profile or in the one it extends."""
    runtimes: Mapping[str, Runtime] = field(default_factory=dict)
    """Roles whose model another runtime executes than the catalogue entry says."""


@dataclass(frozen=True)
class ComponentGraph:
    """The parsed graph. Iteration order of `components` is topological."""

    components: Mapping[str, ComponentNode]
    profiles: Mapping[str, Profile]
    drafts: Drafts = field(default_factory=Drafts)
    """What is not part of this release. A soft dependency may name one of its components; nothing else may."""
    source: Path | None = field(default=None, compare=False)

    def profile(self, name: str) -> Profile:
        """The profile. Raises `config_invalid` for one that is unknown or only drafted."""
        if name in self.drafts.profiles:
            raise self.drafts.refusal(name)
        if name not in self.profiles:
            known = ", ".join(sorted(self.profiles))
            raise TrendFlowError("config_invalid", f"Profile {name!r} is unknown; known profiles: {known}.")
        return self.profiles[name]

    def enabled(self, profile: str) -> list[ComponentNode]:
        """Components of a profile in topological order."""
        wanted = self.profile(profile).components
        return [node for name, node in self.components.items() if name in wanted]

    def stages(self) -> dict[str, list[ComponentNode]]:
        """Stage name → its components, both in topological order."""
        grouped: dict[str, list[ComponentNode]] = {}
        for node in self.components.values():
            grouped.setdefault(node.stage, []).append(node)
        return grouped

    def active_deps(self, profile: str, component: str) -> list[str]:
        """Declared dependencies of `component` that the profile enables, hard ones first."""
        wanted = self.profile(profile).components
        return [dep for dep in self.components[component].deps if dep in wanted]

    def source_kind(self, profile: str, component: str) -> str:
        """What a component's values were read off, dependencies included.

        `document` when it reads the text itself, `derived` when one of its enabled dependencies did, else `media`.
        """
        if "document" in self.components[component].reads:
            return "document"
        kinds = {self.source_kind(profile, dep) for dep in self.active_deps(profile, component)}
        return "media" if kinds <= {"media"} else "derived"

    def dependants(self, component: str) -> set[str]:
        """Everything that directly or indirectly needs `component` by hard edges."""
        found: set[str] = set()
        for name, node in self.components.items():
            if component in node.hard or found.intersection(node.hard):
                found.add(name)
        return found


def _sampling(reader: Reader) -> SamplingDecl:
    decl = SamplingDecl(
        min=reader.get("min", int, None),
        target=reader.get("target", int, None),
        max=reader.get("max", int, None),
        group=reader.get("group", str, None),
        parent=reader.get("parent", str, None),
        family=reader.choice("family", AUDIO_FAMILIES) if "family" in reader.value else None,
    )
    reader.done()
    if decl.family is not None:
        if len(reader.value) > 1:
            raise reader.fail("an audio family stands alone; frames are another component's business.")
        return decl
    if decl.min is None or decl.target is None or decl.max is None:
        raise reader.fail("a frame budget needs 'min', 'target' and 'max'.")
    if not 0 < decl.min <= decl.target <= decl.max:
        raise reader.fail("a budget must satisfy 0 < min <= target <= max.")
    if decl.group is not None and decl.parent is not None:
        raise reader.fail("a component has a sampling group or a parent, not both.")
    return decl


def _component(name: str, reader: Reader) -> ComponentNode:
    sampling = _sampling(reader.child("sampling")) if "sampling" in reader.value else None
    node = ComponentNode(
        **vars(read_node(name, reader)),
        stage=reader.get("stage", str),
        reads=reader.names("reads", READS),
        unit=reader.choice("unit", UNITS),
        sampling=sampling,
        schema_version=reader.get("schema_version", str),
        extra_artifacts=reader.child("extra_artifacts", {}).strings(),
        resources=read_resources(reader.child("resources")),
        cross_video_batching=reader.get("cross_video_batching", bool, False),
        tier=reader.get("tier", int),
    )
    reader.done()
    if "frames" in node.reads and (sampling is None or sampling.family is not None):
        raise reader.fail("reads frames but declares no frame budget.")
    if {"audio", "audio_full"}.intersection(node.reads) and (sampling is None or sampling.family is None):
        raise reader.fail("reads audio but declares no audio family.")
    return node


def _enabled(reader: Reader, node: ComponentNode) -> ProfileComponent:
    params, sampling = reader.child("params", {}), reader.child("sampling", {})
    overrides = {key: int(sampling.get(key, int)) for key in BUDGET_OVERRIDES if key in sampling.value}
    entry = ProfileComponent(
        required=reader.get("required", bool, True),
        params=params.value,
        sampling=overrides,
        line=reader.line,
        param_lines=params.key_lines(),
    )
    sampling.done()
    reader.done()
    budget = frame_budget(node, entry)
    if budget is None and overrides:
        raise sampling.fail(f"{node.name} has no frame budget to override.")
    if budget is not None and not 0 < budget[0] <= budget[1] <= budget[2]:
        raise sampling.fail(f"the resulting budget {budget} does not satisfy 0 < min <= target <= max.")
    return entry


def _profile(name: str, reader: Reader, graph: Mapping[str, ComponentNode], bases: Mapping[str, Profile]) -> Profile:
    extends = reader.get("extends", (str, NoneType), None)
    if extends is not None and extends not in bases:
        raise reader.fail(f"extends {extends!r}, which is not a profile defined above.", "extends")
    base = bases.get(extends) if extends else None
    components: dict[str, ProfileComponent] = dict(base.components) if base else {}
    for component, entry in reader.child("components").children():
        if component not in graph:
            raise entry.fail("no such component.")
        components[component] = _enabled(entry, graph[component])
    models = reader.child("models", {})
    entries, runtimes = read_models(models)
    policy = read_policy(reader.child("policy", {}))

    def version(key: str) -> str:
        return str(reader.get(key, str, getattr(base, key) if base else ...))

    profile = Profile(
        name=name,
        description=reader.get("description", str),
        components=components,
        models={**(base.models if base else {}), **entries},
        policy={**(base.policy if base else {}), **policy},
        sampling_policy_version=version("sampling_policy_version"),
        prompts_version=version("prompts_version"),
        thresholds_version=version("thresholds_version"),
        line=reader.line,
        model_lines={**(base.model_lines if base else {}), **models.key_lines()},
        # A role that is mapped anew says anew where it runs.
        runtimes={role: name for role, name in (base.runtimes if base else {}).items() if role not in entries}
        | runtimes,
    )
    reader.done()
    _check_profile(profile, reader, graph)
    return profile


def _check_profile(profile: Profile, reader: Reader, graph: Mapping[str, ComponentNode]) -> None:
    if SEGMENTER not in profile.components:
        raise reader.fail("the segmenter must be enabled.", "components")
    groups: dict[str, list[tuple[int, int]]] = {}
    for name, entry in profile.components.items():
        node = graph[name]
        for dep in node.hard:
            if dep not in profile.components:
                raise fault(entry.line, f"{reader.where}: {name} needs {dep}, which is not enabled.")
        for role in node.required_roles:
            if role not in profile.models:
                raise reader.fail(f"{name} needs the role {role!r}, which maps to no model.", "models")
        if node.sampling is not None and node.sampling.parent not in (None, *profile.components):
            raise fault(
                entry.line, f"{reader.where}: {name} samples from {node.sampling.parent}, which is not enabled."
            )
        budget = frame_budget(node, entry)
        if budget is not None and node.sampling is not None and node.sampling.group is not None:
            groups.setdefault(node.sampling.group, []).append((budget[0], budget[2]))
    for group, members in groups.items():
        low, high = max(member[0] for member in members), min(member[1] for member in members)
        if low > high:
            raise reader.fail(
                f"sampling group {group!r} is unsatisfiable: largest min {low} > smallest max {high}.", "components"
            )


def frame_budget(node: ComponentNode, entry: ProfileComponent) -> tuple[int, int, int] | None:
    """(min, target, max) frames of a component with the profile's overrides; None for audio and text."""
    decl = node.sampling
    if decl is None or decl.family is not None or decl.min is None or decl.target is None or decl.max is None:
        return None
    over = entry.sampling
    return (
        over.get("min_frames", decl.min),
        over.get("target_frames", decl.target),
        over.get("max_frames", decl.max),
    )


def parse_graph(text: str, source: Path | None = None) -> ComponentGraph:
    """Parse and check a graph document. Raises `config_invalid` with the offending line."""
    root = read_document(text)
    if root.get("version", str) != GRAPH_VERSION:
        raise root.fail(f"'version' must be {GRAPH_VERSION!r}.", "version")
    section = root.child("components")
    nodes = with_all_soft({name: _component(name, reader) for name, reader in section.children()})
    drafts = root.child("drafts", {})
    drafted = read_draft_components(drafts, nodes.values(), section)
    for name, component in nodes.items():
        for dep in component.deps:
            if dep not in nodes and not (dep in component.soft and dep in drafted):
                raise section.fail(f"{name} depends on the unknown component {dep!r}.", name)
        parent = component.sampling.parent if component.sampling else None
        if parent is not None and parent not in nodes:
            raise section.fail(f"{name} samples from the unknown parent {parent!r}.", name)
    ordered = topological(nodes)
    profiles: dict[str, Profile] = {}
    for name, reader in root.child("profiles").children():
        profiles[name] = _profile(name, reader, ordered, profiles)
    bases = {
        name: {component: entry.required for component, entry in profile.components.items()}
        for name, profile in profiles.items()
    }
    draft_profiles = read_draft_profiles(drafts, {**ordered, **drafted}, bases, drafted)
    drafts.done()
    root.done()
    return ComponentGraph(ordered, profiles, Drafts(drafted, draft_profiles), source)


def load_graph(path: Path) -> ComponentGraph:
    """Read a graph file; see `parse_graph`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise TrendFlowError("config_invalid", f"The component graph {path.name!r} cannot be read.") from exc
    return parse_graph(text, path)
