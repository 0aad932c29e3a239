"""`trendflow costs`: what the components cost here, measured by the runs themselves."""

from __future__ import annotations

import json
from dataclasses import asdict

from trendflow.commands.console import err, out, table
from trendflow.config import load_settings
from trendflow.contracts.costs import WHOLE, estimates
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.graph import load_graph
from trendflow.contracts.keys import model_signature
from trendflow.contracts.package_data import data_path
from trendflow.contracts.schema import SchemaRegistry
from trendflow.storage.cost_registry import CostRegistry
from trendflow.storage.object_store import ObjectStore

_NO_MODELS = model_signature(())


def costs(component: str | None, parts: bool, as_json: bool) -> int:
    """Print the estimates of every series, or of one component; `parts` shows phases as well.

    Raises `config_invalid` for a component that neither the graph nor any measurement knows.
    """
    settings = load_settings()
    store = ObjectStore.open(settings.resolved_store_url, settings.store_options)
    rows = CostRegistry(store, SchemaRegistry.load()).rows()
    found = [
        estimate
        for estimate in estimates(rows)
        if component in (None, estimate.component) and (parts or estimate.part == WHOLE)
    ]
    if component is not None and not found:
        known = load_graph(settings.graph_file or data_path("component_graph.yaml")).components
        if component not in known:
            raise TrendFlowError("config_invalid", f"There is no component {component!r}.", component=component)
    if as_json:
        out.print_json(json.dumps([asdict(estimate) for estimate in found]))
        return 0
    if not found:
        err.print("No costs have been measured yet." if component is None else f"No costs of {component} are known.")
        return 0
    shown = [
        [
            estimate.component,
            estimate.producer_version,
            "–" if estimate.model_signature == _NO_MODELS else estimate.model_signature[:8],
            *([estimate.part.removeprefix("substep:")] if parts else []),
            estimate.bucket,
            f"{estimate.latency_ms_per_unit:.2f} ms / {estimate.unit}",
            _megabytes(estimate.cpu_rss_peak_mb),
            _megabytes(estimate.gpu_memory_per_task_mb),
            str(estimate.rows),
            str(estimate.device_profile["gpu"] or estimate.device_profile["cpu"]),
        ]
        for estimate in found
    ]
    columns = [
        "component",
        "version",
        "models",
        *(["part"] if parts else []),
        "input",
        "time",
        "memory",
        "GPU memory",
        "runs",
        "device",
    ]
    out.print(table(None, columns, shown, right=("time", "memory", "GPU memory", "runs")))
    return 0


def _megabytes(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} MB"
