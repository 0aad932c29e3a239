"""`component_graph.yaml`: what it says, and the checks that need no code.

A broken file is refused with `config_invalid` and the line to look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.vocab import COMPONENT_KINDS

GRAPH_VERSION = "component_graph_v1"
SEGMENTER = "segmenter"
READS = frozenset({"frames", "audio", "audio_full", "dense", "document"})
PROCESSORS = frozenset({"segmenter", "visual", "audio", "text", "dataset"})
UNITS = frozenset({"frame", "frame_pair", "segment", "clip", "face", "document", "video"})


@dataclass(frozen=True)
class SamplingDecl:
    """What a component asks of the Segmenter: a frame budget, or an audio family."""

    min: int | None = None
    target: int | None = None
    max: int | None = None
    group: str | None = None
    parent: str | None = None
    family: str | None = None


@dataclass(frozen=True)
class ComponentNode:
    """One component of the graph."""

    name: str
    description: str
    kind: str
    processor: str
    stage: str
    hard: tuple[str, ...]
    soft: tuple[str, ...]
    reads: tuple[str, ...]
    unit: str
    sampling: SamplingDecl | None
    required_roles: tuple[str, ...]
    optional_roles: tuple[str, ...]
    schema_version: str
    extra_artifacts: Mapping[str, str]
    resources: Mapping[str, Any]
    cross_video_batching: bool
    tier: int
    line: int

    @property
    def deps(self) -> tuple[str, ...]:
        return self.hard + self.soft

    @property
    def timeout_s(self) -> float:
        return float(self.resources.get("timeout_s", 1800))


@dataclass(frozen=True)
class ProfileComponent:
    required: bool
    params: Mapping[str, Any]
    sampling: Mapping[str, int]
    line: int


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


@dataclass(frozen=True)
class ComponentGraph:
    """The parsed graph. Iteration order of `components` is topological."""

    components: Mapping[str, ComponentNode]
    profiles: Mapping[str, Profile]
    absent: Mapping[str, str]
    """Soft dependencies that this release does not provide, with the reason."""
    source: Path | None = field(default=None, compare=False)

    def profile(self, name: str) -> Profile:
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

    def dependants(self, component: str) -> set[str]:
        """Everything that directly or indirectly needs `component` by hard edges."""
        found: set[str] = set()
        for name, node in self.components.items():
            if component in node.hard or found.intersection(node.hard):
                found.add(name)
        return found


class _Reader:
    """A YAML mapping with line numbers; typed access that names the line of what is wrong."""

    def __init__(self, value: Mapping[str, Any], lines: Mapping[str, Any], where: str, line: int) -> None:
        self.value, self.lines, self.where, self.line = value, lines, where, line
        self.seen: set[str] = set()

    def fail(self, message: str, key: str | None = None) -> TrendFlowError:
        line = self.lines[key][1] if key is not None and key in self.lines else self.line
        return TrendFlowError("config_invalid", f"component_graph line {line}: {self.where}: {message}", line=line)

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        self.seen.add(key)
        if key not in self.value:
            if default is ...:
                raise self.fail(f"{key!r} is missing.")
            return default
        found = self.value[key]
        if not isinstance(found, kind) or (isinstance(found, bool) and kind is int):
            raise self.fail(f"{key!r} has the wrong type {type(found).__name__}.", key)
        return found

    def child(self, key: str, default: Mapping[str, Any] | None = None) -> _Reader:
        value = self.get(key, dict, ... if default is None else default)
        lines, line = self.lines.get(key, ({}, self.line))
        return _Reader(value, lines, f"{self.where}.{key}" if self.where else key, line)

    def names(self, key: str, allowed: frozenset[str] | None = None) -> tuple[str, ...]:
        values = self.get(key, list)
        if not all(isinstance(value, str) for value in values) or len(set(values)) != len(values):
            raise self.fail(f"{key!r} must list distinct names.", key)
        unknown = set(values) - allowed if allowed is not None else set()
        if unknown:
            raise self.fail(f"{key!r} holds unknown {sorted(unknown)}.", key)
        return tuple(values)

    def choice(self, key: str, allowed: frozenset[str]) -> str:
        value = self.get(key, str)
        if value not in allowed:
            raise self.fail(f"{key!r} is {value!r}, not one of {sorted(allowed)}.", key)
        return str(value)

    def children(self) -> Iterator[tuple[str, _Reader]]:
        for key in self.value:
            yield key, self.child(key)

    def done(self) -> None:
        unknown = [key for key in self.value if key not in self.seen]
        if unknown:
            raise self.fail(f"unknown key {unknown[0]!r}.", unknown[0])


def _lines(node: yaml.Node) -> dict[str, Any]:
    """Mapping key → (lines of its value, line number)."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {str(key.value): (_lines(value), key.start_mark.line + 1) for key, value in node.value}


def _component(name: str, reader: _Reader) -> ComponentNode:
    deps = reader.child("deps")
    roles = reader.child("roles")
    sampling = None
    if "sampling" in reader.value:
        decl = reader.child("sampling")
        sampling = SamplingDecl(
            min=decl.get("min", int, None),
            target=decl.get("target", int, None),
            max=decl.get("max", int, None),
            group=decl.get("group", str, None),
            parent=decl.get("parent", str, None),
            family=decl.get("family", str, None),
        )
        decl.done()
        budget = (sampling.min, sampling.target, sampling.max)
        if sampling.family is None:
            if any(value is None for value in budget):
                raise decl.fail("a frame budget needs 'min', 'target' and 'max'.")
            low, target, high = (int(value or 0) for value in budget)
            if not 0 < low <= target <= high:
                raise decl.fail("a budget must satisfy 0 < min <= target <= max.")
    node = ComponentNode(
        name=name,
        description=reader.get("description", str),
        kind=reader.choice("kind", COMPONENT_KINDS),
        processor=reader.choice("processor", PROCESSORS),
        stage=reader.get("stage", str),
        hard=deps.names("hard"),
        soft=deps.names("soft"),
        reads=reader.names("reads", READS),
        unit=reader.choice("unit", UNITS),
        sampling=sampling,
        required_roles=roles.names("required"),
        optional_roles=roles.names("optional"),
        schema_version=reader.get("schema_version", str),
        extra_artifacts=reader.get("extra_artifacts", dict, {}),
        resources=reader.get("resources", dict),
        cross_video_batching=reader.get("cross_video_batching", bool, False),
        tier=reader.get("tier", int),
        line=reader.line,
    )
    for sub in (deps, roles, reader):
        sub.done()
    if "frames" in node.reads and (sampling is None or sampling.family is not None):
        raise reader.fail("reads frames but declares no frame budget.")
    if {"audio", "audio_full"}.intersection(node.reads) and (sampling is None or sampling.family is None):
        raise reader.fail("reads audio but declares no audio family.")
    return node


def _profile(name: str, reader: _Reader, graph: Mapping[str, ComponentNode], bases: Mapping[str, Profile]) -> Profile:
    extends = reader.get("extends", (str, type(None)), None)
    if extends is not None and extends not in bases:
        raise reader.fail(f"extends {extends!r}, which is not a profile defined above.", "extends")
    base = bases.get(extends) if extends else None
    components: dict[str, ProfileComponent] = dict(base.components) if base else {}
    for component, entry in reader.child("components").children():
        if component not in graph:
            raise entry.fail("no such component.")
        components[component] = ProfileComponent(
            required=entry.get("required", bool, True),
            params=entry.get("params", dict, {}),
            sampling=entry.get("sampling", dict, {}),
            line=entry.line,
        )
        entry.done()
    models = dict(base.models) if base else {}
    models.update(reader.get("models", dict, {}))
    policy = dict(base.policy) if base else {}
    policy.update(reader.get("policy", dict, {}))

    def version(key: str) -> str:
        return str(reader.get(key, str, getattr(base, key) if base else ...))

    profile = Profile(
        name=name,
        description=reader.get("description", str),
        components=components,
        models=models,
        policy=policy,
        sampling_policy_version=version("sampling_policy_version"),
        prompts_version=version("prompts_version"),
        thresholds_version=version("thresholds_version"),
        line=reader.line,
    )
    reader.done()
    _check_profile(profile, reader, graph)
    return profile


def _check_profile(profile: Profile, reader: _Reader, graph: Mapping[str, ComponentNode]) -> None:
    if SEGMENTER not in profile.components:
        raise reader.fail("the segmenter must be enabled.")
    groups: dict[str, list[tuple[str, int, int]]] = {}
    for name, entry in profile.components.items():
        node = graph[name]
        for dep in node.hard:
            if dep not in profile.components:
                raise reader.fail(f"{name} needs {dep}, which is not enabled.")
        for role in node.required_roles:
            if role not in profile.models:
                raise reader.fail(f"{name} needs the role {role!r}, which maps to no model.")
        unknown = set(entry.sampling) - {"min_frames", "target_frames", "max_frames"}
        if unknown:
            raise reader.fail(f"{name}: unknown sampling override {sorted(unknown)}.")
        low, _, high = frame_budget(node, entry) or (0, 0, 0)
        if node.sampling and node.sampling.group:
            groups.setdefault(node.sampling.group, []).append((name, low, high))
    for group, members in groups.items():
        low, high = max(member[1] for member in members), min(member[2] for member in members)
        if low > high:
            raise reader.fail(f"sampling group {group!r} is unsatisfiable: largest min {low} > smallest max {high}.")


def frame_budget(node: ComponentNode, entry: ProfileComponent) -> tuple[int, int, int] | None:
    """(min, target, max) frames of a component with the profile's overrides; None for audio and text."""
    decl = node.sampling
    if decl is None or decl.family is not None or decl.min is None or decl.target is None or decl.max is None:
        return None
    over = entry.sampling
    return (
        int(over.get("min_frames", decl.min)),
        int(over.get("target_frames", decl.target)),
        int(over.get("max_frames", decl.max)),
    )


def _topological(nodes: Mapping[str, ComponentNode]) -> dict[str, ComponentNode]:
    ordered: dict[str, ComponentNode] = {}
    visiting: list[str] = []

    def visit(name: str) -> None:
        if name in ordered:
            return
        if name in visiting:
            cycle = " -> ".join([*visiting[visiting.index(name) :], name])
            raise TrendFlowError(
                "config_invalid", f"component_graph line {nodes[name].line}: dependency cycle {cycle}."
            )
        visiting.append(name)
        for dep in nodes[name].deps:
            if dep in nodes:
                visit(dep)
        visiting.pop()
        ordered[name] = nodes[name]

    for name in nodes:
        visit(name)
    return ordered


def parse_graph(text: str, source: Path | None = None) -> ComponentGraph:
    """Parse and check a graph document. Raises `config_invalid` with the offending line."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise TrendFlowError("config_invalid", f"component_graph line {line}: not valid YAML.", line=line) from exc
    if not isinstance(value, dict) or node is None:
        raise TrendFlowError("config_invalid", "component_graph line 1: the file must hold a mapping.", line=1)
    root = _Reader(value, _lines(node), "", 1)
    if root.get("version", str) != GRAPH_VERSION:
        raise root.fail(f"'version' must be {GRAPH_VERSION!r}.", "version")
    absent = root.get("absent", dict, {})
    section = root.child("components")
    nodes = {name: _component(name, reader) for name, reader in section.children()}
    for name, component in nodes.items():
        for dep in component.deps:
            if dep not in nodes and not (dep in component.soft and dep in absent):
                raise section.fail(f"{name} depends on the unknown component {dep!r}.", name)
        parent = component.sampling.parent if component.sampling else None
        if parent is not None and parent not in nodes:
            raise section.fail(f"{name} samples from the unknown parent {parent!r}.", name)
    ordered = _topological(nodes)
    profiles: dict[str, Profile] = {}
    for name, reader in root.child("profiles").children():
        profiles[name] = _profile(name, reader, ordered, profiles)
    root.done()
    return ComponentGraph(ordered, profiles, absent, source)


def load_graph(path: Path) -> ComponentGraph:
    """Read a graph file; see `parse_graph`."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise TrendFlowError("config_invalid", f"The component graph {path.name!r} cannot be read.") from exc
    return parse_graph(text, path)
