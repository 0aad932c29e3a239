"""Metrics of a training run from its predictions: the model, the comparators on the same rows, the differences.

Differences, verdicts and the gate judge the point forecast, fitted to the loss of the training. People are shown the
median p50, a model of its own: its metrics stand beside, without differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from training.comparators import COMPARATORS
from training.metrics import METRICS, ChannelBootstrap, Estimate
from training.predictions import HeadRows, by_head, paired
from trendflow.dataset.table.metadata_features import AGE_BUCKETS
from trendflow.inference.quantiles import NOMINAL

_LOWER_IS_BETTER = {"rmse": True, "mae": True, "spearman": False}
Scores = Mapping[str, Estimate]


def evaluate(
    predictions: pa.Table, resamples: int, seed: int, previous: pa.Table | None = None
) -> dict[str, dict[str, Any]]:
    """`heads` of `metrics.json`; `previous` are the predictions of the model to be replaced."""
    earlier = {} if previous is None else {rows.head.name: rows for rows in by_head(previous)}
    return {rows.head.name: _head(rows, earlier.get(rows.head.name), resamples, seed) for rows in by_head(predictions)}


def _head(rows: HeadRows, previous: HeadRows | None, resamples: int, seed: int) -> dict[str, Any]:
    cells = {"overall": np.arange(len(rows.y))}
    cells |= {bucket: np.flatnonzero(rows.bucket == bucket) for bucket in AGE_BUCKETS}
    found = {name: _cell(rows.take(at), resamples, seed) for name, at in cells.items()}
    differences = {
        name: _by_cell({cell: values["differences"][name] for cell, values in found.items()}) for name in COMPARATORS
    }
    result: dict[str, Any] = {
        "model": _by_cell({cell: values["point"] for cell, values in found.items()}),
        "p50": _by_cell({cell: values["p50"] for cell, values in found.items()}),
        "comparators": {
            name: _by_cell({cell: values["comparators"][name] for cell, values in found.items()})
            for name in COMPARATORS
        },
        "differences": differences,
        "coverage": {
            "nominal": NOMINAL,
            **_by_cell({cell: values["coverage"] for cell, values in found.items()}),
        },
        "repairs": {"n": len(rows.y), **{name: float(np.mean(found)) for name, found in rows.repairs.items()}},
        "quantiles_ordered": bool(
            np.all(rows.forecasts["p10"] <= rows.forecasts["p50"])
            and np.all(rows.forecasts["p50"] <= rows.forecasts["p90"])
        ),
    }
    if previous is not None:
        new, old = paired(rows, previous)
        result["differences"]["previous"] = _by_cell(
            {"overall": difference(new, old, resamples, seed)}
            | {
                bucket: difference(new.take(at), old.take(at), resamples, seed)
                for bucket in AGE_BUCKETS
                for at in [np.flatnonzero(new.bucket == bucket)]
            }
        )
    result["verdicts"] = {
        name: {metric: verdict(metric, cells["overall"][metric]) for metric in METRICS}
        for name, cells in result["differences"].items()
    }
    return result


def _by_cell(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"overall": values["overall"], "buckets": {bucket: values[bucket] for bucket in AGE_BUCKETS}}


def _cell(rows: HeadRows, resamples: int, seed: int) -> dict[str, Any]:
    bootstrap = ChannelBootstrap(rows.channel, resamples, seed)
    scores = {name: bootstrap.scores(rows.y, rows.forecasts[name]) for name in ("point", "p50", *COMPARATORS)}
    covered = (rows.forecasts["p10"] <= rows.y) & (rows.y <= rows.forecasts["p90"])
    return {
        "point": bootstrap.cell(scores["point"]),
        "p50": bootstrap.cell(scores["p50"]),
        "comparators": {name: bootstrap.cell(scores[name]) for name in COMPARATORS},
        "differences": {name: bootstrap.cell(_minus(scores["point"], scores[name])) for name in COMPARATORS},
        "coverage": {
            "n": bootstrap.n,
            "n_channels": bootstrap.n_channels,
            **bootstrap.mean(covered.astype(np.float64)).as_dict(),
            "mean_width": float(np.mean(rows.forecasts["p90"] - rows.forecasts["p10"])) if bootstrap.n else None,
        },
    }


def difference(new: HeadRows, old: HeadRows, resamples: int, seed: int) -> dict[str, Any]:
    """new − old of the point forecasts on shared rows, with paired intervals."""
    bootstrap = ChannelBootstrap(new.channel, resamples, seed)
    scores = [bootstrap.scores(new.y, rows.forecasts["point"]) for rows in (new, old)]
    return bootstrap.cell(_minus(*scores))


def _minus(first: Scores, second: Scores) -> dict[str, Estimate]:
    return {metric: first[metric] - second[metric] for metric in METRICS}


def verdict(metric: str, change: Mapping[str, float | None]) -> str:
    """`better` or `worse` when the interval of a difference excludes 0, `undecided` when it does not.

    `undefined` where there is no interval: a constant forecast has no Spearman.
    """
    low, high = change["low"], change["high"]
    if low is None or high is None:
        return "undefined"
    if low <= 0 <= high:
        return "undecided"
    return "better" if (high < 0) == _LOWER_IS_BETTER[metric] else "worse"


def better(verdicts: Mapping[str, str]) -> bool:
    """Whether the paired Spearman interval says so; where Spearman is undefined, that of the RMSE."""
    found = verdicts["spearman"]
    return (verdicts["rmse"] if found == "undefined" else found) == "better"
