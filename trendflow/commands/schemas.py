"""`trendflow schemas`: the contracts of what is stored, their lock and their human pages."""

from __future__ import annotations

from pathlib import Path

from trendflow.commands.console import out, table
from trendflow.commands.files import write_output
from trendflow.components.registry import Registry, load_registry, source_files
from trendflow.config import load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import ComponentGraph, load_graph
from trendflow.contracts.package_data import data_path
from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.schema_docs import render_index_markdown, render_schema_markdown
from trendflow.contracts.schema_lock import check_schemas, check_sources, lock_schemas, lock_sources
from trendflow.models.catalogue import Catalogue


def _graph() -> ComponentGraph:
    return load_graph(load_settings().graph_file or data_path("component_graph.yaml"))


def _sources(registry: Registry) -> dict[str, tuple[str, list[Path]]]:
    return {
        entry.spec.name: (entry.spec.producer_version, source_files(entry.spec.name, entry.module))
        for entry in registry
    }


def check() -> int:
    """Hold schemas, graph and component sources against each other and against their locks."""
    schemas = SchemaRegistry.load()
    registry = load_registry(_graph(), schemas, Catalogue.load())
    problems = check_schemas(schemas) + check_sources(_sources(registry), schemas.directory)
    for problem in problems:
        out.print(f"[red]problem[/] {problem}", highlight=False, soft_wrap=True)
    if problems:
        raise TrendFlowError("config_invalid", f"The schemas or component sources have {len(problems)} problems.")
    out.print(f"{len(list(schemas))} artifact schemas, {len(schemas.documents)} document schemas: in order")
    return 0


def lock(unreleased: list[str]) -> int:
    """Pin new schemas and new producer versions. What is pinned changes only under a new version."""
    schemas, registry = SchemaRegistry.load(), load_registry(_graph())
    written = lock_schemas(schemas, unreleased) + lock_sources(_sources(registry), schemas.directory, unreleased)
    out.print(f"pinned: {', '.join(written) or 'nothing new'}", highlight=False, soft_wrap=True)
    return 0


def list_schemas() -> int:
    """Print all artifact schemas."""
    rows = [
        [schema.schema_version, schema.producer, str(len(schema.fields)), str(len(schema.features)), schema.description]
        for schema in SchemaRegistry.load()
    ]
    out.print(table(None, ["schema", "producer", "arrays", "features", "content"], rows, right=("arrays", "features")))
    return 0


def docs(target: Path | None, name: str | None) -> int:
    """Print the human page of one schema, or write all pages into a folder."""
    schemas = SchemaRegistry.load()
    if name is not None:
        out.print(render_schema_markdown(schemas.get(name)), highlight=False, markup=False, soft_wrap=True)
        return 0
    if target is None:
        raise TrendFlowError("config_invalid", "Name a schema to print, or a folder with --output for all pages.")
    for schema in schemas:
        write_output(target / f"{schema.schema_version}.md", render_schema_markdown(schema).encode())
    write_output(target / "README.md", render_index_markdown(schemas).encode())
    out.print(f"{len(list(schemas))} pages written")
    return 0
