"""Charts with labelled axes: the drawing stretches, the labels beside it are HTML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from trendflow.presentation.formatting import compact
from trendflow.presentation.svg import WIDTH, Chart

_DECADES = tuple(10.0**power for power in range(13))
_FEW = 3


@dataclass(frozen=True)
class Label:
    """A text at `at` percent of its axis, from the left or from the top. `edge` ones may not be centred there."""

    at: float
    text: str
    edge: str = ""


@dataclass(frozen=True)
class LegendItem:
    """A mark, by the classes of the style sheet, and what it means."""

    css: str
    text: str


@dataclass(frozen=True)
class Framed:
    """A chart with the labels of its axes. `css` decides its height, `caption` says what is to be seen."""

    svg: Markup
    x_labels: Sequence[Label]
    y_labels: Sequence[Label]
    x_title: str = ""
    y_title: str = ""
    legend: Sequence[LegendItem] = ()
    caption: str = ""
    title: str = ""
    css: str = ""


def x_labels(chart: Chart, ticks: Sequence[tuple[float, str]]) -> list[Label]:
    """Labels under a chart; the outermost ones stay within it."""
    return [_edge(Label(100 * chart.x(at) / WIDTH, text)) for at, text in ticks]


def y_labels(chart: Chart, ticks: Sequence[tuple[float, str]]) -> list[Label]:
    """Labels left of a chart."""
    return [Label(100 * chart.y(at) / chart.height, text) for at, text in ticks]


def _edge(label: Label) -> Label:
    edge = "first" if label.at < 2 else "last" if label.at > 98 else ""
    return Label(label.at, label.text, edge)


def log_count_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round counts within [`low`, `high`] of a log1p axis, with their names: 0, 10, 100, 1k, … at most eight.

    Where less than three powers of ten fit, their double and fivefold stand between them.
    """
    inside = _within([0.0, *_DECADES[1:]], low, high)
    if len(inside) < _FEW:
        inside = _within([0.0, *(factor * decade for decade in _DECADES for factor in (1, 2, 5))], low, high)
    step = max(1, math.ceil(len(inside) / 8))
    return [(math.log1p(count), compact(count)) for count in inside[::step]]


def _within(counts: Sequence[float], low: float, high: float) -> list[float]:
    return [count for count in counts if low - 1e-9 <= math.log1p(count) <= high + 1e-9]
