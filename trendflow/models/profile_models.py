"""Which model serves which role in each profile, and why a component is not in it: derived, not written down.

The reasons follow from the graph, the catalogue and the files on this machine, so they cannot fall behind them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from trendflow.contracts.graph import ComponentGraph, ComponentNode, Profile
from trendflow.models.catalogue import Catalogue
from trendflow.models.store import FileState, WeightsStore

NOT_CHOSEN = "the profile does without it"


@dataclass(frozen=True)
class RoleUse:
    """What a role of a profile is mapped to. An optional role may have no model: then `reason` says why."""

    role: str
    entry: str | None
    digest_state: FileState | None
    used_by: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True)
class LeftOut:
    """A component of this release that a profile does not run."""

    component: str
    reason: str


@dataclass(frozen=True)
class ProfileModels:
    """A profile of this release."""

    name: str
    roles: tuple[RoleUse, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Draft:
    """A drafted profile: the components it adds to `extends` that have no code, and its roles nobody serves."""

    name: str
    extends: str
    without_code: tuple[str, ...]
    without_model: tuple[str, ...]


def profile_models(graph: ComponentGraph, catalogue: Catalogue, models_dir: Path) -> tuple[ProfileModels, ...]:
    """What every profile of the graph maps its roles to, and what it leaves out."""
    view = _View(graph, catalogue, WeightsStore(models_dir))
    return tuple(view.profile(name) for name in graph.profiles)


def drafts(graph: ComponentGraph, catalogue: Catalogue) -> tuple[Draft, ...]:
    """What the drafted profiles wait for."""
    rows = []
    for name, profile in graph.drafts.profiles.items():
        inherited = graph.drafts.profiles.get(profile.extends)
        known = set(inherited.components) if inherited else set()
        added = [graph.drafts.components[missing] for missing in graph.drafts.missing(name) if missing not in known]
        wanted = dict.fromkeys(role for node in added for role in node.required_roles)
        rows.append(
            Draft(
                name=name,
                extends=profile.extends,
                without_code=tuple(node.name for node in added),
                without_model=tuple(role for role in wanted if not catalogue.for_role(role)),
            )
        )
    return tuple(rows)


@dataclass(frozen=True)
class _View:
    graph: ComponentGraph
    catalogue: Catalogue
    store: WeightsStore

    def profile(self, name: str) -> ProfileModels:
        profile, nodes = self.graph.profiles[name], self.graph.components
        return ProfileModels(
            name=name,
            roles=tuple(
                self._uses((nodes[component] for component in nodes if component in profile.components), profile)
            ),
            left_out=tuple(
                LeftOut(component, self._why_left_out(node, profile))
                for component, node in nodes.items()
                if component not in profile.components
            ),
        )

    def _uses(self, enabled: Iterable[ComponentNode], profile: Profile) -> Iterator[RoleUse]:
        wanted: dict[str, list[str]] = {}
        for node in enabled:
            for role in node.roles:
                wanted.setdefault(role, []).append(node.name)
        for role, components in wanted.items():
            entry = self.catalogue[profile.models[role]] if role in profile.models else None
            yield RoleUse(
                role=role,
                entry=entry.name if entry else None,
                digest_state=self.store.entry_state(entry) if entry else None,
                used_by=tuple(components),
                reason=None if entry else self._why_unmapped(role),
            )

    def _why_left_out(self, node: ComponentNode, profile: Profile) -> str:
        reasons = [
            f"its role {role} has no model: {self._why_unmapped(role)}"
            for role in node.required_roles
            if role not in profile.models
        ]
        absent = [dep for dep in node.hard if dep not in profile.components]
        if absent:
            reasons.append(f"it needs {', '.join(absent)}")
        return "; ".join(reasons) or NOT_CHOSEN

    def _why_unmapped(self, role: str) -> str:
        declared = self.catalogue.roles[role]
        if declared.without_entry is not None:
            return declared.without_entry.rstrip(".")
        offered = self.catalogue.for_role(role)
        downloads = " (to be downloaded)" if all(entry.source.kind == "url" for entry in offered) else ""
        return f"not mapped: {', '.join(entry.name for entry in offered)}{downloads}"
