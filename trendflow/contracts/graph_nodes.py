"""What every component of the graph declares, whether it has code or is drafted: its kind, its edges and its roles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from trendflow.contracts.graph_checks import Reader, fault
from trendflow.contracts.vocab import COMPONENT_KINDS, PROCESSORS

ALL = "all"
"""As a list of soft dependencies: every component that measures, which are all but those of kind `dataset`."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A component as the graph file declares it."""

    name: str
    description: str
    kind: str
    processor: str
    hard: tuple[str, ...]
    soft: tuple[str, ...]
    required_roles: tuple[str, ...]
    optional_roles: tuple[str, ...]
    line: int
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Line of each key of the entry."""
    soft_is_all: bool = False
    """Whether the file says `soft: all`; `soft` holds the names."""

    @property
    def deps(self) -> tuple[str, ...]:
        return self.hard + self.soft

    @property
    def roles(self) -> tuple[str, ...]:
        """Every role it may use, required ones first."""
        return self.required_roles + self.optional_roles


N = TypeVar("N", bound=Node)


def read_node(name: str, reader: Reader) -> Node:
    """The part of an entry that all components have. The caller reads the rest and calls `reader.done()`."""
    deps, roles = reader.child("deps"), reader.child("roles")
    soft_is_all = deps.get("soft", (str, list)) == ALL
    node = Node(
        name=name,
        description=reader.get("description", str),
        kind=reader.choice("kind", COMPONENT_KINDS),
        processor=reader.choice("processor", PROCESSORS),
        hard=deps.names("hard"),
        soft=() if soft_is_all else deps.names("soft"),
        required_roles=roles.names("required"),
        optional_roles=roles.names("optional"),
        line=reader.line,
        lines=reader.key_lines(),
        soft_is_all=soft_is_all,
    )
    deps.done()
    roles.done()
    return node


def with_all_soft(nodes: Mapping[str, N], others: Iterable[Node] = ()) -> dict[str, N]:
    """The same nodes with `soft: all` spelt out: those of `others` and of `nodes` that measure, in this order."""
    known: list[Node] = [*others, *nodes.values()]
    measuring = [node.name for node in known if node.kind != "dataset"]
    return {
        name: replace(node, soft=tuple(dep for dep in measuring if dep not in (name, *node.hard)))
        if node.soft_is_all
        else node
        for name, node in nodes.items()
    }


def topological(nodes: Mapping[str, N]) -> dict[str, N]:
    """The same nodes, each after its dependencies. Raises `config_invalid` for a cycle; names it does not hold pass."""
    ordered: dict[str, N] = {}
    visiting: list[str] = []

    def visit(name: str) -> None:
        if name in ordered:
            return
        if name in visiting:
            cycle = " -> ".join([*visiting[visiting.index(name) :], name])
            raise fault(nodes[name].line, f"dependency cycle {cycle}.")
        visiting.append(name)
        for dep in nodes[name].deps:
            if dep in nodes:
                visit(dep)
        visiting.pop()
        ordered[name] = nodes[name]

    for name in nodes:
        visit(name)
    return ordered
