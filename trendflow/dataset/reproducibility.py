"""Whether computing a video twice gives the same features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from trendflow.dataset.corpus import RunRecord
from trendflow.dataset.feature_table import FeatureTable, Vector
from trendflow.dataset.health_model import Reproducibility
from trendflow.dataset.health_rules import Limits


def compare_repeats(
    table: FeatureTable,
    deviations: np.ndarray,
    repeats: Sequence[tuple[RunRecord, RunRecord]],
    earlier: Sequence[tuple[RunRecord, Vector]],
    limits: Limits,
) -> Reproducibility:
    """Compare rows of the table with an earlier run of the same video.

    `deviations` float64 [C]: standard deviation of each column over the corpus, which scales the tolerance; a column
    that does not vary must agree exactly. `earlier` holds the vectors of the second runs of `repeats`. Only columns
    that the newer run computed itself, with the versions of the earlier one, are compared: a reused value proves
    nothing. A value on one side alone is a difference.
    """
    vectors = {record.run_path: (record, vector) for record, vector in earlier}
    rows = {record.run_path: row for row, record in enumerate(table.records)}
    tolerance = limits.reproducible_std * np.nan_to_num(deviations)
    differing: Counter[str] = Counter()
    shares: dict[str, float] = {}
    for newer, older in repeats:
        if newer.run_path not in rows or older.run_path not in vectors:
            continue
        where = np.array([_computed_alike(newer, older, column.component) for column in table.columns], dtype=bool)
        first = table.values[rows[newer.run_path]].astype(np.float64)
        second = _aligned(table, vectors[older.run_path][1])
        # Missing in both is no agreement between measurements either.
        where &= ~(np.isnan(first) & np.isnan(second))
        if not where.any():
            continue
        with np.errstate(invalid="ignore"):
            differs = where & ~((np.abs(first - second) <= tolerance) | (first == second))
        differing.update(table.columns[index].name for index in np.flatnonzero(differs))
        shares[newer.key] = float(differs.sum() / where.sum())
    failing = [key for key, share in shares.items() if share > limits.reproducible_share]
    return Reproducibility(
        pairs=len(shares),
        failing=len(failing),
        worst_share=max(shares.values(), default=float("nan")),
        columns=dict(differing.most_common()),
        examples=tuple(sorted(failing)[:3]),
    )


def _computed_alike(newer: RunRecord, older: RunRecord, component: str) -> bool:
    new, old = newer.outcomes.get(component), older.outcomes.get(component)
    if new is None or old is None or "error" in (new.status, old.status):
        return False
    return new.version == old.version and not new.cache_hit


def _aligned(table: FeatureTable, vector: Vector) -> np.ndarray:
    """A vector in the order of the table's columns, float64 [C]."""
    known = dict(zip(vector.names, vector.values.tolist(), strict=True))
    return np.array([known.get(column.name, np.nan) for column in table.columns])
