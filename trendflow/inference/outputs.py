"""Numbers of a forecast: from log1p growth to counts, beside what simple formulas say, and what moved them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from trendflow.contracts.errors import TrendFlowError
from trendflow.inference.bundle import HeadContributions, ModelBundle
from trendflow.inference.encoding import column_of
from trendflow.inference.plain_names import plain_name
from trendflow.inference.quantiles import NAMES, NOMINAL, Served

COMPARATORS = ("velocity", "loglinear")
"""Formulas every forecast is shown beside."""

DRIVERS = 10
LOW_N = 30


def target_of(head: str) -> str:
    return head.rpartition("_")[0]


def model_outputs(served: Mapping[str, Served], x0: Mapping[str, float]) -> dict[str, Any]:
    """`outputs` of a report from what a model serves of one row. Errors as `head_outputs`.

    `put_in_order` names the heads whose models contradicted each other: their quantiles (`levels`) or the horizons of
    their target (`horizons`). What is shown of them is the rearranged forecast, see `quantiles.serve`.
    """
    heads = {name: head_outputs(found.quantiles[0], x0[target_of(name)]) for name, found in served.items()}
    shown = {name: found for name, found in served.items() if not heads[name]["masked"]}
    return {
        "units": {target: target for target in x0},
        "scale": "natural",
        "heads": heads,
        "put_in_order": {
            "levels": [name for name, found in shown.items() if found.crossed[0]],
            "horizons": [name for name, found in shown.items() if found.rearranged[0]],
        },
    }


def head_outputs(y: np.ndarray, x0: float) -> dict[str, Any]:
    """One head: `y` [3] are p10 ≤ p50 ≤ p90 on the log1p scale, `x0` the count at the first snapshot, NaN if unknown.

    `absolute = x0 + expm1(y)`, `delta = expm1(y)`; `p10 p50 p90` are the absolute ones, which the head is named after.
    Raises `artifact_validation_failed` for quantiles out of order, below zero or too large to be a count.
    """
    if math.isnan(x0):
        return masked_head()
    with np.errstate(over="ignore"):  # what overflows is refused below
        delta = np.expm1(np.asarray(y, dtype=np.float64))
    absolute = x0 + delta
    if not (np.isfinite(absolute).all() and (delta >= 0).all() and (np.diff(delta) >= 0).all()):
        raise TrendFlowError("artifact_validation_failed", "The model gave quantiles out of order or out of range.")
    numbers = {f"delta_{name}": float(value) for name, value in zip(NAMES, delta, strict=True)}
    counts = dict(zip(NAMES, absolute.tolist(), strict=True))
    return {
        "masked": False,
        **counts,
        **numbers,
        **{f"absolute_{name}": value for name, value in counts.items()},
        "y_p50": float(y[1]),
    }


def masked_head() -> dict[str, Any]:
    """A head without a number to start from."""
    names = [f"{kind}{name}" for kind in ("", "delta_", "absolute_") for name in NAMES]
    return {"masked": True, **dict.fromkeys([*names, "y_p50"])}


def comparator_outputs(bundle: ModelBundle, table: pa.Table, x0: Mapping[str, float]) -> dict[str, Any]:
    """Formula → head → `y`, `delta` and `absolute`; null where the head is masked or the formula has no value."""
    found: dict[str, dict[str, Any]] = {name: {} for name in COMPARATORS}
    for head, predictions in bundle.comparators(table).items():
        start = x0[target_of(head)]
        for name in COMPARATORS:
            y = float(predictions[name][0])
            known = math.isfinite(y) and not math.isnan(start)
            delta = math.expm1(y) if known else None
            found[name][head] = {
                "y": y if known else None,
                "delta": delta,
                "absolute": None if delta is None else start + delta,
            }
    return found


def interval_outputs(bundle: ModelBundle, bucket: str) -> dict[str, Any]:
    """What the interval promises, and how much it held on the test videos of the same age bucket, per head."""
    measured = {}
    for head in bundle.heads:
        coverage = bundle.metrics["heads"].get(head, {}).get("coverage") or {}
        part = (coverage.get("buckets") or {}).get(bucket) or {}
        n = int(part.get("n") or 0)
        measured[head] = {
            "coverage": part.get("value"),
            "low": part.get("low"),
            "high": part.get("high"),
            "n": n,
            "low_n": n < LOW_N,
        }
    return {"nominal": NOMINAL, "age_bucket": bucket, "measured": measured}


def explanations(bundle: ModelBundle, table: pa.Table, limit: int = DRIVERS) -> dict[str, Any] | None:
    """What moved the point forecast of each head, on its log1p scale; None for a family that cannot say.

    The point forecast is a model of its own: it aims at the mean of the log1p gain, p50 at its median.

    `base` + all contributions = `prediction`. The largest `limit` are named, `others` sums up the rest.
    """
    found = bundle.contributions(table)
    if not found:
        return None
    values = {feature: _shown(bundle, table, feature) for feature in bundle.encoding.features}
    return {
        "method": "shap",
        "scale": "log1p",
        "of": "point",
        "heads": {head: _head_drivers(shares, values, limit) for head, shares in found.items()},
    }


def _head_drivers(shares: HeadContributions, values: Mapping[str, float | str | None], limit: int) -> dict[str, Any]:
    row = np.asarray(shares.values[0], dtype=np.float64)
    order = np.argsort(-np.abs(row), kind="stable")
    top = [at for at in order[:limit].tolist() if row[at] != 0]
    base = float(shares.base[0])
    return {
        "base": base,
        "prediction": base + float(row.sum()),
        "drivers": [
            {
                "feature": shares.names[at],
                "name": plain_name(shares.names[at]),
                "value": values[shares.names[at]],
                "contribution": float(row[at]),
            }
            for at in top
        ],
        "others": float(row.sum() - row[top].sum()),
    }


def _shown(bundle: ModelBundle, table: pa.Table, feature: str) -> float | str | None:
    """The value of a feature as a report shows it: a known category by name, an element of an embedding not at all."""
    if column_of(feature) != feature:
        return None
    value = table.column(feature).to_pylist()[0]
    if feature in bundle.encoding.levels:
        levels = bundle.encoding.levels[feature]
        return None if value in (None, "") else str(value) if str(value) in levels else "other"
    return None if value is None or not math.isfinite(float(value)) else float(value)
