"""Which features the model rests on, and what each family of features adds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from training.report.metric_tables import Number, numbers_of
from training.report.run_files import Cell, ReportedRun
from trendflow.inference.plain_names import plain_name
from trendflow.presentation.forecast_texts import FAMILIES, head_title

_SHOWN = 12


@dataclass(frozen=True)
class ImportanceRow:
    """`share`: of the largest value of the list, for the width of a bar."""

    name: str
    column: str
    family: str
    value: str
    share: float


@dataclass(frozen=True)
class HeadImportance:
    title: str
    rows: tuple[ImportanceRow, ...]
    rest: int
    families: tuple[tuple[str, str, float], ...]
    """Family, its title, and its share of the sum of all positive importances."""


def head_importance(run: ReportedRun, head: str) -> HeadImportance | None:
    """The most important features of one head; None when none were measured."""
    found = (run.metrics.get("importance") or {}).get(head) or []
    positive = [max(float(row["value"]), 0.0) for row in found]
    total = sum(positive)
    if not total:
        return None
    top = max(positive)
    rows = tuple(
        ImportanceRow(
            name=plain_name(str(row["feature"])),
            column=str(row["feature"]),
            family=str(row["family"]),
            value=f"{100 * share / total:.1f}\u202f%",
            share=share / top,
        )
        for row, share in zip(found[:_SHOWN], positive, strict=False)
    )
    return HeadImportance(head_title(head), rows, len(found) - len(rows), _families(found, positive, total))


def _families(found: list[Mapping[str, Any]], values: list[float], total: float) -> tuple[tuple[str, str, float], ...]:
    sums: dict[str, float] = {}
    for row, value in zip(found, values, strict=True):
        sums[str(row["family"])] = sums.get(str(row["family"]), 0.0) + value
    ordered = [name for name in (*FAMILIES, *sorted(sums)) if sums.get(name)]
    return tuple((name, FAMILIES.get(name, name), sums[name] / total) for name in dict.fromkeys(ordered))


@dataclass(frozen=True)
class AblationRow:
    """One set of families: its numbers per head, None where that head was not trained on it."""

    title: str
    n_features: int
    cells: tuple[Number | None, ...]


def ablation(run: ReportedRun) -> tuple[list[str], list[AblationRow]]:
    """Titles of the heads, and one row per set of families: Spearman on the same rows."""
    found: Mapping[str, list[Mapping[str, Any]]] = run.metrics.get("ablation") or {}
    heads = [head for head in run.heads if found.get(head)]
    sets: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
    for head in heads:
        for step in found[head]:
            sets.setdefault(tuple(step["families"]), {})[head] = step
    rows = []
    for families, steps in sets.items():
        cells = tuple(
            numbers_of(Cell.of(steps[head]["overall"]), ("spearman",))[0] if head in steps else None for head in heads
        )
        count = max(int(step["n_features"]) for step in steps.values())
        rows.append(AblationRow(" + ".join(FAMILIES.get(name, name) for name in families), count, cells))
    return [head_title(head) for head in heads], rows
