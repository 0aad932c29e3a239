"""Which features a head rests on: mean |SHAP| on test rows, by the exact tree algorithm of the library itself.

A family without one is judged by shuffling: the rise of the squared error of test rows when one feature is permuted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trendflow.inference.boosters import Booster

_REPEATS = 5
SHAP, PERMUTATION = "mean_abs_shap", "permutation_mse"


def head_importance(booster: Booster, matrix: np.ndarray, y: np.ndarray, seed: int) -> tuple[str, np.ndarray]:
    """Name of the method and float64 [features]."""
    found = booster.contributions(matrix)
    if found is not None:
        return SHAP, np.abs(found.values).mean(axis=0)
    rng = np.random.default_rng(seed)
    base = np.mean((booster.predict(matrix) - y) ** 2)
    rise = np.zeros(matrix.shape[1])
    for feature in range(matrix.shape[1]):
        for _ in range(_REPEATS):
            shuffled = matrix.copy()
            shuffled[:, feature] = rng.permutation(shuffled[:, feature])
            rise[feature] += (np.mean((booster.predict(shuffled) - y) ** 2) - base) / _REPEATS
    return PERMUTATION, rise


def ranking(names: Sequence[str], family: Mapping[str, str], values: np.ndarray) -> list[dict[str, Any]]:
    """Features in descending order of importance."""
    order = sorted(range(len(names)), key=lambda i: (-values[i], names[i]))
    return [{"feature": names[i], "family": family[names[i]], "value": float(values[i])} for i in order]


def importance_page(title: str, method: str, heads: Mapping[str, Sequence[Mapping[str, Any]]], top: int = 25) -> str:
    """`importance_report.md`: the first features of every head and the share of every family."""
    lines = [
        f"# {title}",
        "",
        f"Method: `{method}` on the test rows of the stored models. Shares are of the head's sum.",
    ]
    for name, ranked in heads.items():
        total = sum(max(entry["value"], 0.0) for entry in ranked) or 1.0
        families: dict[str, float] = {}
        for entry in ranked:
            families[entry["family"]] = families.get(entry["family"], 0.0) + max(entry["value"], 0.0) / total
        shares = ", ".join(f"{family} {share:.0%}" for family, share in families.items())
        lines += ["", f"## {name}", "", f"By family: {shares}.", ""]
        lines += ["| feature | family | importance | share |", "|---|---|---:|---:|"]
        for entry in ranked[:top]:
            share = max(entry["value"], 0.0) / total
            lines.append(f"| `{entry['feature']}` | {entry['family']} | {entry['value']:.4f} | {share:.1%} |")
    return "\n".join(lines) + "\n"
