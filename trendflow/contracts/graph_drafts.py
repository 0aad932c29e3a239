"""The `drafts:` of `component_graph.yaml`: components and profiles that are decided but not part of this release.

Their edges and roles are checked like those of real ones, so that what is built later fits what was decided. Nothing
else sees them: no asset, schema, document of an artifact or key depends on a draft.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph_checks import Reader, fault
from trendflow.contracts.graph_nodes import Node, read_node, topological, with_all_soft

_ENDING = "_extractor"


@dataclass(frozen=True)
class DraftProfile:
    """Which components a profile will run, those it inherits included; the value says whether each is required."""

    name: str
    description: str
    extends: str
    components: Mapping[str, bool]


@dataclass(frozen=True)
class Drafts:
    """What later releases add. Iteration order of `components` is topological."""

    components: Mapping[str, Node] = field(default_factory=dict)
    profiles: Mapping[str, DraftProfile] = field(default_factory=dict)

    def missing(self, profile: str) -> list[str]:
        """The components of a drafted profile that have no code yet."""
        return [name for name in self.components if name in self.profiles[profile].components]

    def refusal(self, profile: str) -> TrendFlowError:
        """What whoever asks for a drafted profile is told."""
        missing = self.missing(profile)
        return TrendFlowError(
            "config_invalid",
            f"Profile {profile!r} is only drafted: {len(missing)} of its {len(self.profiles[profile].components)} "
            f"components are not part of this release: {_listed(missing)}.",
            profile=profile,
            missing=missing,
        )


def _listed(names: Sequence[str]) -> str:
    """The names, those with the usual ending gathered: two dozen of them do not fit into one message otherwise."""
    stems = [name.removesuffix(_ENDING) for name in names if name.endswith(_ENDING)]
    gathered = [f"{{{', '.join(stems)}}}{_ENDING}"] if stems else []
    return ", ".join([*(name for name in names if not name.endswith(_ENDING)), *gathered])


def read_draft_components(reader: Reader, real: Iterable[Node], entries: Reader) -> dict[str, Node]:
    """The drafted components, in the order of the file. `real` are those of the graph, read from `entries`."""
    known = {node.name: node for node in real}
    drafted: dict[str, Node] = {}
    for name, entry in reader.child("components", {}).children():
        if name in known:
            raise entry.fail(f"has code; it is declared in line {entries.line_of(name)}.")
        drafted[name] = read_node(name, entry)
        entry.done()
    drafted = with_all_soft(drafted, known.values())
    for name, node in drafted.items():
        for dep in node.deps:
            if dep not in known and dep not in drafted:
                raise fault(node.lines["deps"], f"{name} depends on the unknown component {dep!r}.")
    order = topological({**known, **drafted})
    return {name: order[name] for name in order if name in drafted}


def read_draft_profiles(
    reader: Reader, nodes: Mapping[str, Node], bases: Mapping[str, Mapping[str, bool]], drafted: Iterable[str]
) -> dict[str, DraftProfile]:
    """The drafted profiles. `nodes` are all components, `bases` the real profiles: component → whether required."""
    known, unbuilt = dict(bases), set(drafted)
    profiles: dict[str, DraftProfile] = {}
    for name, entry in reader.child("profiles", {}).children():
        if name in bases:
            raise entry.fail("is a profile of this release.")
        extends = entry.get("extends", str)
        if extends not in known:
            raise entry.fail(f"extends {extends!r}, which is not a profile defined above.", "extends")
        components = dict(known[extends])
        lines: dict[str, int] = {}
        for component, row in entry.child("components").children():
            if component not in nodes:
                raise row.fail("no such component.")
            components[component] = row.get("required", bool)
            lines[component] = row.line
            row.done()
        for component in components:
            for dep in nodes[component].hard:
                if dep not in components:
                    line = lines.get(component, entry.line)
                    raise fault(line, f"{entry.where}: {component} needs {dep}, which is not enabled.")
        if unbuilt.isdisjoint(components):
            raise entry.fail("every component of it has code; it belongs to the profiles of this release.")
        known[name] = components
        profiles[name] = DraftProfile(name, entry.get("description", str), extends, components)
        entry.done()
    return profiles
