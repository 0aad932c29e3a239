"""Tables of metrics: model and comparators side by side on the same rows, each number with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.report.run_files import OWN, Cell, Estimate, ReportedRun
from training.report.verdicts import NORTH_STAR, Verdict, against_persistence, verdict
from trendflow.presentation.forecast_texts import BUCKETS, bucket_title, comparator_title, head_title
from trendflow.presentation.forecast_texts import METRICS as METRIC_NAMES
from trendflow.presentation.formatting import MISSING, difference, fixed, interval

METRICS = ("spearman", "rmse", "mae")


_OWN_TITLES = {"model": "Model", "p50": "Model, median shown"}


def predictor_title(name: str) -> str:
    return _OWN_TITLES.get(name) or comparator_title(name)


@dataclass(frozen=True)
class Number:
    """A value and, below it, its interval."""

    value: str
    interval: str


@dataclass(frozen=True)
class PredictorRow:
    """One predictor on one set of rows. `verdict`: how the model differs from it; None in the model's own row."""

    name: str
    is_model: bool
    numbers: tuple[Number, ...]
    verdict: Verdict | None
    verdict_text: str


@dataclass(frozen=True)
class Part:
    """All predictors on the rows of one age bucket, or on all rows."""

    title: str
    n: int
    n_channels: int
    low_n: bool
    rows: tuple[PredictorRow, ...]


@dataclass(frozen=True)
class HeadTable:
    title: str
    overall: Part
    buckets: tuple[Part, ...]
    badge: tuple[str, str]


def head_table(run: ReportedRun, head: str) -> HeadTable:
    """Overall and by age bucket."""
    predictors = run.predictors(head)
    held = [name for name in (*BUCKETS, *_others(predictors)) if name in predictors["model"]["buckets"]]
    return HeadTable(
        title=head_title(head),
        overall=_part(run, head, "overall", {name: found["overall"] for name, found in predictors.items()}),
        buckets=tuple(
            _part(run, head, name, {key: found["buckets"][name] for key, found in predictors.items()}) for name in held
        ),
        badge=persistence_badge(against_persistence(run, head)),
    )


def persistence_badge(found: Verdict) -> tuple[str, str]:
    """How a head stands against persistence."""
    words = {
        "better": "beats persistence",
        "worse": "worse than persistence",
        "undecided": "does not beat persistence",
        "undefined": "not compared with persistence",
    }
    return found.badge, words[found.word]


def _others(predictors: Mapping[str, Any]) -> list[str]:
    return [name for name in predictors["model"]["buckets"] if name not in BUCKETS]


def _part(run: ReportedRun, head: str, name: str, cells: Mapping[str, Mapping[str, Any]]) -> Part:
    model = Cell.of(cells["model"])
    rows = []
    for predictor, found in cells.items():
        bucket = None if name == "overall" else name
        verdict_ = None if predictor in OWN else verdict(run, head, predictor, bucket=bucket)
        rows.append(
            PredictorRow(
                name=predictor_title(predictor),
                is_model=predictor in OWN,
                numbers=numbers_of(Cell.of(found)),
                verdict=verdict_,
                verdict_text="" if verdict_ is None else _named(verdict_, signed(verdict_.difference)),
            )
        )
    title = "All ages" if name == "overall" else bucket_title(name).capitalize()
    return Part(title, model.n, model.n_channels, model.low_n, tuple(rows))


def numbers_of(cell: Cell, metrics: tuple[str, ...] = METRICS) -> tuple[Number, ...]:
    """The metrics of a cell in the order asked."""
    return tuple(_number(cell.metrics[metric]) for metric in metrics)


def _number(estimate: Estimate) -> Number:
    return Number(fixed(estimate.value, 3), interval(estimate.low, estimate.high))


def signed(estimate: Estimate) -> str:
    """A difference with its interval, both with signs."""
    if not math.isfinite(estimate.value):
        return MISSING
    return f"{difference(estimate.value, 3)} {_ends(estimate)}"


def _difference(found: Verdict) -> Number:
    if not math.isfinite(found.difference.value):
        return Number(MISSING, MISSING)
    return Number(_named(found, difference(found.difference.value, 3)), _ends(found.difference))


def _named(found: Verdict, text: str) -> str:
    """A difference in another metric than the one the table is about says so."""
    return text if found.metric == NORTH_STAR else f"{METRIC_NAMES[found.metric]} {text}"


def _ends(estimate: Estimate) -> str:
    return f"[{difference(estimate.low, 3)}, {difference(estimate.high, 3)}]"


@dataclass(frozen=True)
class MatrixRow:
    """Verdicts of one head against every comparator."""

    title: str
    model: Number
    n: int
    n_channels: int
    cells: tuple[tuple[str, str, Number], ...]
    """Per comparator: badge, word, difference with interval."""


def comparison_matrix(run: ReportedRun, metric: str = "spearman") -> tuple[list[str], list[MatrixRow]]:
    """Names of the comparators and one row per head: the model's metric and its difference to each of them."""
    names = list(dict.fromkeys(name for head in run.heads for name in run.head(head).get("differences", {})))
    rows = []
    for head in run.heads:
        cell = Cell.of(run.head(head)["model"]["overall"])
        verdicts = [verdict(run, head, name, metric) for name in names]
        rows.append(
            MatrixRow(
                title=head_title(head),
                model=_number(cell.metrics[metric]),
                n=cell.n,
                n_channels=cell.n_channels,
                cells=tuple((found.badge, found.text, _difference(found)) for found in verdicts),
            )
        )
    return [comparator_title(name) for name in names], rows
