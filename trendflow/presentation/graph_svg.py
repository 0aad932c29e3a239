"""The picture of the component graph, generated from `component_graph.yaml`."""

from __future__ import annotations

from html import escape

from trendflow.contracts.graph import ComponentGraph

_BOX_W, _BOX_H, _GAP_X, _GAP_Y, _PAD, _HEAD = 208, 40, 76, 18, 24, 34
_CLOSING = (("run_manifest", "json"), ("run_report", "html"))
_VECTOR, _CORPUS = "feature_vector", (("feature_health", "html"),)

_STYLE = """
text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2933}
.stage{font-size:11px;letter-spacing:.08em;fill:#617080;text-transform:uppercase}
.role{font-size:10.5px;fill:#617080}
rect{fill:#fff;stroke:#9fb3c8;rx:7}
.segmenter{fill:#e3f0fb;stroke:#2f6db0}.core{fill:#e6f4ea;stroke:#2e7d4f}
.module{fill:#fdf3dc;stroke:#b7791f}.audio{fill:#f0e8fa;stroke:#7a4bb0}
path{fill:none;stroke:#7b8794;stroke-width:1.2}.soft{stroke-dasharray:4 4;stroke:#b0bac5}
"""


def render_graph(graph: ComponentGraph) -> str:
    """An SVG of the stages, left to right; solid arrows for hard and dashed arrows for soft dependencies."""
    columns = _columns(graph)
    height = _PAD * 2 + max(sum(_stage_height(len(nodes)) for _, nodes in column) for column in columns)
    width = _PAD * 2 + len(columns) * (_BOX_W + _GAP_X) - _GAP_X
    places: dict[str, tuple[float, float]] = {}
    boxes: list[str] = []
    for number, column in enumerate(columns):
        x = _PAD + number * (_BOX_W + _GAP_X)
        y = (height - sum(_stage_height(len(nodes)) for _, nodes in column)) / 2
        for title, nodes in column:
            boxes.append(f'<text class="stage" x="{x}" y="{y + 14}">{escape(title.replace("_", " "))}</text>')
            y += _HEAD
            for name, kind in nodes:
                places[name] = (x, y)
                boxes.append(_box(graph, name, kind, x, y))
                y += _BOX_H + _GAP_Y
    edges = [
        _edge(places[dep], places[node.name], "hard" if dep in node.hard else "soft")
        for node in graph.components.values()
        for dep in node.deps
        if dep in places
    ]
    leaves = [name for name in graph.components if not any(name in node.deps for node in graph.components.values())]
    edges += [_edge(places[name], places["run_manifest"], "hard") for name in leaves]
    edges.append(_edge(places["run_manifest"], places["run_report"], "hard"))
    edges += [_edge(places[_VECTOR], places[name], "hard") for name, _ in _CORPUS if name in places]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="The TrendFlow asset graph"><style>{_STYLE}</style>'
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" style="fill:#7b8794;stroke:none"/></marker></defs>'
        f'<rect x="0" y="0" width="{width}" height="{height}" style="stroke:none"/>'
        f"{''.join(edges)}{''.join(boxes)}</svg>\n"
    )


def _columns(graph: ComponentGraph) -> list[list[tuple[str, list[tuple[str, str]]]]]:
    """Stages by depth: a stage stands right of every stage that it depends on."""
    depth: dict[str, int] = {}
    for node in graph.components.values():  # topological, so the stages of dependencies are known
        others = [graph.components[dep].stage for dep in node.deps if dep in graph.components]
        below = [depth[stage] + 1 for stage in others if stage != node.stage]
        depth[node.stage] = max([depth.get(node.stage, 0), *below])
    columns: list[list[tuple[str, list[tuple[str, str]]]]] = [[] for _ in range(max(depth.values()) + 1)]
    for stage, nodes in graph.stages().items():
        columns[depth[stage]].append((stage, [(node.name, node.kind) for node in nodes]))
    last = [("run", list(_CLOSING))]
    if _VECTOR in graph.components:
        last.append(("all runs", list(_CORPUS)))
    return [*columns, last]


def _stage_height(boxes: int) -> int:
    return _HEAD + boxes * (_BOX_H + _GAP_Y)


def _box(graph: ComponentGraph, name: str, kind: str, x: float, y: float) -> str:
    node = graph.components.get(name)
    roles = ", ".join(node.required_roles) if node else ""
    label_y = y + (_BOX_H / 2 - 2 if roles else _BOX_H / 2 + 4)
    small = f'<text class="role" x="{x + 12}" y="{y + _BOX_H - 7}">{escape(roles)}</text>' if roles else ""
    return (
        f'<rect class="{escape(kind)}" x="{x}" y="{y}" width="{_BOX_W}" height="{_BOX_H}"/>'
        f'<text x="{x + 12}" y="{label_y}">{escape(name)}</text>{small}'
    )


def _edge(start: tuple[float, float], end: tuple[float, float], css: str) -> str:
    x1, y1 = start[0] + _BOX_W, start[1] + _BOX_H / 2
    x2, y2 = end[0], end[1] + _BOX_H / 2
    if start[0] == end[0]:  # inside one stage: leave and enter at the left side
        x1, x2 = start[0], end[0]
        bend = x1 - _GAP_X * 0.35
        curve = f"M{x1} {y1}C{bend} {y1} {bend} {y2} {x2} {y2}"
    else:
        middle = (x1 + x2) / 2
        curve = f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"
    return f'<path class="{css}" d="{curve}" marker-end="url(#tip)"/>'
