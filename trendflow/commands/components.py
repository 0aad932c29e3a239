"""`trendflow components`: what the components are."""

from __future__ import annotations

from pathlib import Path

from trendflow.commands.console import out
from trendflow.commands.files import write_output
from trendflow.components.registry import load_registry
from trendflow.config import load_settings
from trendflow.contracts.graph import load_graph
from trendflow.contracts.package_data import data_path
from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.thresholds import THRESHOLDS
from trendflow.models.catalogue import Catalogue
from trendflow.presentation.component_docs import render_components


def docs(target: Path) -> int:
    """Write the reference page of all components."""
    schemas = SchemaRegistry.load()
    graph = load_graph(load_settings().graph_file or data_path("component_graph.yaml"))
    page = render_components(load_registry(graph, schemas, Catalogue.load()), schemas, THRESHOLDS)
    write_output(target, page.encode())
    out.print(str(target), highlight=False, soft_wrap=True)
    return 0
