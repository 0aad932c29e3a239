"""The picture of the graph in the documentation is the one the graph file gives today."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from trendflow.contracts.graph import load_graph
from trendflow.contracts.package_data import data_path
from trendflow.presentation.graph_svg import render_graph

SVG = "{http://www.w3.org/2000/svg}"


def test_the_documented_picture_is_current(repo_root: Path) -> None:
    drawn = render_graph(load_graph(data_path("component_graph.yaml")))
    assert (repo_root / "docs" / "graph.svg").read_text(encoding="utf-8") == drawn, "run: trendflow graph"


def test_every_component_and_every_edge_is_drawn() -> None:
    graph = load_graph(data_path("component_graph.yaml"))
    root = ElementTree.fromstring(render_graph(graph))
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert {*graph.components, "run_manifest", "run_report", "feature_health"} <= texts
    edges = [element.get("class") for element in root.iter(f"{SVG}path") if element.get("class")]
    soft = [dep for node in graph.components.values() for dep in node.soft if dep in graph.components]
    assert edges.count("soft") == len(soft)
