"""Figures of a training run: predicted against actual, order of the predictors, calibration of the quantiles.

Axes of counts are log1p, as the models are trained, and their labels are counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from training.gate import ACCEPTED_COVERAGE
from training.report.metric_tables import predictor_title
from training.report.run_files import OWN, Cell, Estimate, ReportedRun, Rows
from trendflow.inference.quantiles import LEVELS, NAMES
from trendflow.presentation.forecast_texts import bucket_title, head_title
from trendflow.presentation.formatting import fixed, percent, plural
from trendflow.presentation.framed import Framed, LegendItem, log_count_ticks, x_labels, y_labels
from trendflow.presentation.series import nice_range
from trendflow.presentation.svg import Chart

_DOTS = 600  # beyond, points cover each other and a histogram says more
_SQUARE = 1000.0  # as high as it is wide
_CELLS = 44
_DENSITY = ("density d-1", "density d-2", "density d-3", "density d-4")
QUANTILES = dict(zip(NAMES, LEVELS, strict=True))


def predicted_against_actual(head: str, rows: Rows) -> Framed | None:
    """Median forecast against what happened; None without rows."""
    if not len(rows.y):
        return None
    top = max(float(rows.y.max()), float(rows.p50.max()), 1.0) * 1.04
    low = min(0.0, float(rows.p50.min()))
    chart = Chart((low, top), (low, top), height=_SQUARE)
    ticks = log_count_ticks(low, top)
    chart.grid([at for at, _ in ticks], [at for at, _ in ticks])
    few = len(rows.y) <= _DOTS
    if few:
        chart.cloud(rows.p50, rows.y, "cloud")
    else:
        edges = np.linspace(low, top, _CELLS + 1)
        counts, _, _ = np.histogram2d(rows.p50, rows.y, bins=(edges, edges))
        chart.cells(edges, edges, counts, _DENSITY)
    chart.line(np.array([low, top]), np.array([low, top]), "diagonal")
    return Framed(
        svg=chart.render(f"Predicted against actual, {head_title(head)}"),
        x_labels=x_labels(chart, ticks),
        y_labels=y_labels(chart, ticks),
        x_title="predicted gain (median)",
        y_title="actual gain",
        legend=[
            LegendItem("key-dot c-picture" if few else "density", "one video" if few else "videos, darker is more"),
            LegendItem("diagonal", "exact"),
        ],
        title=head_title(head),
        caption=plural(len(rows.y), "video"),
        css="fig-square",
    )


def predictors_in_order(run: ReportedRun, head: str, metric: str = "spearman") -> Framed | None:
    """Model and comparators with their intervals, one below the other; None when none has a value."""
    found = {name: Cell.of(parts["overall"]).metrics[metric] for name, parts in run.predictors(head).items()}
    found = {name: estimate for name, estimate in found.items() if math.isfinite(estimate.value)}
    ends = [end for estimate in found.values() for end in (estimate.low, estimate.high, estimate.value)]
    finite = [end for end in ends if math.isfinite(end)]
    if not finite:
        return None
    low, high, ticks = nice_range(min(finite), max(finite), 4)
    chart = Chart((low, high), (0.0, float(len(found))), height=26.0 * len(found))
    chart.grid(ticks)
    names = []
    for place, (name, estimate) in enumerate(found.items()):
        at = len(found) - place - 0.5
        css = "c-picture" if name in OWN else "c-content"
        if math.isfinite(estimate.low) and math.isfinite(estimate.high):
            chart.line(np.array([estimate.low, estimate.high]), np.array([at, at]), f"whisker {css}")
        chart.dots([estimate.value], [at], f"dot {css}")
        names.append((at, predictor_title(name)))
    decimals = 2 if ticks[1] - ticks[0] < 0.1 else 1  # short labels: neighbours must not touch
    return Framed(
        svg=chart.render(f"{metric} of model and comparators, {head_title(head)}"),
        x_labels=x_labels(chart, [(tick, fixed(tick, decimals)) for tick in ticks]),
        y_labels=y_labels(chart, names),
        title=head_title(head),
        css="fig-order",
    )


def quantile_reliability(rows: Mapping[str, Rows]) -> Framed | None:
    """Share of the videos below each quantile against the share that should be; None without rows."""
    shares = {head: observed_shares(found) for head, found in rows.items() if len(found.y)}
    if not shares:
        return None
    chart = Chart((0.0, 1.0), (0.0, 1.0), height=_SQUARE)
    ticks = [(k / 5, percent(k / 5)) for k in range(6)]
    chart.grid([at for at, _ in ticks], [at for at, _ in ticks])
    chart.line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "diagonal")
    for head, observed in shares.items():
        css = "c-picture" if head.startswith("views") else "c-cut"
        chart.dots(list(QUANTILES.values()), list(observed.values()), f"dot faintdot {css}")
    return Framed(
        svg=chart.render("Share of videos below each predicted quantile"),
        x_labels=x_labels(chart, ticks),
        y_labels=y_labels(chart, ticks),
        x_title="should lie below (10 %, 50 %, 90 %)",
        y_title="lie below",
        legend=[
            LegendItem("key-dot c-picture", "views"),
            LegendItem("key-dot c-cut", "likes"),
            LegendItem("diagonal", "calibrated"),
        ],
        title="Quantiles",
        caption="One dot per head and quantile. Above the line a quantile is too high, below it too low.",
        css="fig-square",
    )


def observed_shares(rows: Rows) -> dict[str, float]:
    """Quantile → share of `y` at or below it."""
    return {name: float(np.mean(rows.y <= getattr(rows, name))) for name in QUANTILES}


def coverage_by_bucket(head: str, parts: Mapping[str, Mapping[str, float]], nominal: float) -> Framed | None:
    """Measured coverage of [p10, p90] overall and per age bucket with intervals; None when nothing was measured.

    `parts`: `overall` or bucket → {n, value, low, high}.
    """
    found = {name: Estimate.of(part) for name, part in parts.items()}
    found = {name: estimate for name, estimate in found.items() if math.isfinite(estimate.value)}
    if not found:
        return None
    chart = Chart((0.4, 1.0), (0.0, float(len(found))), height=30.0 * len(found))
    chart.band(*ACCEPTED_COVERAGE, "nominal", f"accepted: {' to '.join(map(percent, ACCEPTED_COVERAGE))}")
    ticks = [0.4, 0.6, 0.8, 1.0]
    chart.grid(ticks)
    chart.marker(nominal, "level")
    names = []
    for place, (name, estimate) in enumerate(found.items()):
        at = len(found) - place - 0.5
        css = "c-picture" if name == "overall" else "c-content"
        low, high = max(estimate.low, chart.x0), min(estimate.high, chart.x1)
        if math.isfinite(low) and math.isfinite(high):
            chart.line(np.array([low, high]), np.array([at, at]), f"whisker {css}")
        chart.dots([max(estimate.value, chart.x0)], [at], f"dot {css}")
        names.append((at, "all ages" if name == "overall" else name))
    return Framed(
        svg=chart.render(f"Coverage of the interval, {head_title(head)}"),
        x_labels=x_labels(chart, [(tick, percent(tick)) for tick in ticks]),
        y_labels=y_labels(chart, names),
        title=head_title(head),
        caption="; ".join(
            f"{'all' if name == 'overall' else bucket_title(name)}: {percent(found[name].value)} of {int(part['n'])}"
            for name, part in parts.items()
            if name in found
        ),
        css="fig-coverage",
    )
