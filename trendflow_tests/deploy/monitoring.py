"""What Prometheus expressions may name: the series that the code exposes, with their labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import promql_parser
from prometheus_client.metrics import MetricWrapperBase

from trendflow.service.metrics import Metrics

OF_THE_SCRAPE = {"job", "instance"}
OF_PROMETHEUS = {"up": OF_THE_SCRAPE}

_PARTS = {"gauge": ("",), "counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


def families() -> dict[str, MetricWrapperBase]:
    """The metrics of the deployment, by name."""
    registry = Metrics().registry
    return {collector._name: collector for collector in registry._collector_to_names}  # there is no public way to ask


def series() -> dict[str, set[str]]:
    """Every series that can be asked for, with its labels."""
    found = dict(OF_PROMETHEUS)
    for name, collector in families().items():
        for part in _PARTS[collector._type]:
            own = {"le"} if part == "_bucket" else set()
            found[f"{name}{part}"] = {*collector._labelnames, *OF_THE_SCRAPE, *own}
    return found


def parsed(expression: str) -> Any:
    """The expression as Prometheus reads it; Grafana's own variables stand for a range."""
    for variable in ("$__rate_interval", "$__range"):
        expression = expression.replace(variable, "5m")
    return promql_parser.parse(expression)


def selectors(expression: str) -> Iterator[Any]:
    """The series that an expression asks for."""
    found: list[Any] = []
    promql_parser.walk(parsed(expression), found.append)
    return (node for node in found if isinstance(node, promql_parser.VectorSelector))


def family_of(series_name: str) -> str:
    """The metric that a series belongs to."""
    return next(name for name in families() if series_name.startswith(name) and series_name in _series_of(name))


def unknown(expression: str) -> list[str]:
    """What an expression names that nobody exposes: series, labels of their matchers, labels it groups by."""
    known, wrong = series(), []
    labels: set[str] = set()
    for selector in selectors(expression):
        if selector.name not in known:
            wrong.append(selector.name)
            continue
        labels |= known[selector.name]
        wrong += [matcher.name for matcher in selector.matchers.matchers if matcher.name not in known[selector.name]]
    return wrong + [label for label in _grouped_by(expression) if label not in labels]


def _grouped_by(expression: str) -> list[str]:
    found: list[Any] = []
    promql_parser.walk(parsed(expression), found.append)
    groups = [node for node in found if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None]
    return [label for node in groups for label in node.modifier.labels]


def _series_of(name: str) -> set[str]:
    return {f"{name}{part}" for part in _PARTS[families()[name]._type]}
