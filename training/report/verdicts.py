"""What a paired difference allows to say: an improvement is claimed only when its interval excludes zero."""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.report.run_files import Estimate, TrainingRun

PERSISTENCE = ("persistence", "loglinear")
"""Log-linear persistence of the first count, and of count and age: what a model has to beat to be worth anything."""

NORTH_STAR = "spearman"
_HIGHER_IS_BETTER = {"spearman": True, "rmse": False, "mae": False}

_RANK = ("worse", "unknown", "open", "better")

TEXTS = {"better": "better", "worse": "worse", "open": "not shown", "unknown": "not compared"}
BADGES = {"better": "ok", "worse": "error", "open": "warning", "unknown": "empty"}


@dataclass(frozen=True)
class Verdict:
    """Model against one comparator in one metric. `word` ∈ better, worse, open, unknown."""

    head: str
    comparator: str
    metric: str
    difference: Estimate
    word: str

    @property
    def badge(self) -> str:
        return BADGES[self.word]

    @property
    def text(self) -> str:
        return TEXTS[self.word]


def judge(difference: Estimate, metric: str) -> str:
    """`better` when the whole interval lies on the good side of zero, `worse` on the other, else `open`."""
    if not (math.isfinite(difference.low) and math.isfinite(difference.high)):
        return "unknown"
    low, high = difference.low, difference.high
    if not _HIGHER_IS_BETTER[metric]:
        low, high = -high, -low
    return "better" if low > 0 else "worse" if high < 0 else "open"


def verdict(
    run: TrainingRun, head: str, comparator: str, metric: str = NORTH_STAR, bucket: str | None = None
) -> Verdict:
    """On all rows, or on those of one age bucket.

    A constant orders nothing: where Spearman has no value, the RMSE speaks.
    """
    difference = run.difference(head, comparator, metric, bucket)
    found = Verdict(head, comparator, metric, difference, judge(difference, metric))
    if found.word == "unknown" and metric == NORTH_STAR:
        return verdict(run, head, comparator, "rmse", bucket)
    return found


def against_persistence(run: TrainingRun, head: str, metric: str = NORTH_STAR) -> Verdict:
    """The least favourable verdict against the formulas of persistence: a model has to beat each of them."""
    held = [name for name in PERSISTENCE if name in run.head(head)["comparators"]] or list(PERSISTENCE[-1:])
    found = [verdict(run, head, name, metric) for name in held]
    return min(found, key=lambda one: _RANK.index(one.word))
