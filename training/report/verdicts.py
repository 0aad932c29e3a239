"""What the page says of a paired difference; `training.evaluation` decides it."""

from __future__ import annotations

from dataclasses import dataclass

from training import evaluation
from training.comparators import PERSISTENCE
from training.report.run_files import Cell, Estimate, ReportedRun

NORTH_STAR = "spearman"

FEW = "few"
_RANK = ("worse", "undefined", "undecided", "better")

TEXTS = {
    "better": "better",
    "worse": "worse",
    "undecided": "not shown",
    "undefined": "not compared",
    FEW: "too few videos",
}
BADGES = {"better": "ok", "worse": "error", "undecided": "warning", "undefined": "empty", FEW: "empty"}


@dataclass(frozen=True)
class Verdict:
    """Model against one comparator in one metric. `word` ∈ better, worse, undecided, undefined, few."""

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


def verdict(
    run: ReportedRun, head: str, comparator: str, metric: str = NORTH_STAR, bucket: str | None = None
) -> Verdict:
    """On all rows, or on those of one age bucket, where fewer than 30 rows allow no verdict.

    A constant orders nothing: where Spearman has no value, the RMSE speaks.
    """
    difference = run.difference(head, comparator, metric, bucket)
    few = bucket is not None and Cell.of(run.head(head)["model"]["buckets"][bucket]).low_n
    word = FEW if few else evaluation.verdict(metric, difference.as_dict())
    found = Verdict(head, comparator, metric, difference, word)
    if found.word == "undefined" and metric == NORTH_STAR:
        return verdict(run, head, comparator, "rmse", bucket)
    return found


def against_persistence(run: ReportedRun, head: str, metric: str = NORTH_STAR) -> Verdict:
    """The least favourable verdict against the formulas of persistence: a model has to beat each of them."""
    held = [name for name in PERSISTENCE if name in run.head(head)["comparators"]] or list(PERSISTENCE[-1:])
    found = [verdict(run, head, name, metric) for name in held]
    return min(found, key=lambda one: _RANK.index(one.word))
