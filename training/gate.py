"""The quality gate: may this model take the place of the current one?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from training.comparators import COMPARATORS
from training.evaluation import better, verdict
from training.metrics import LOW_N

NORTH_STAR = ("views_14d", "views_21d", "likes_14d", "likes_21d")
_TOLERANCE = 0.01
_COVERAGE = (0.75, 0.95)
PASS, FAIL, NOT_JUDGED = "pass", "fail", "not_judged"


class Check(NamedTuple):
    """One rule of the gate."""

    name: str
    verdict: str
    detail: str


def quality_gate(heads: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """`gate` of `metrics.json`. `passed` is true only when every rule was judged and holds."""
    checks = [
        _judge("previous_spearman", _previous_spearman(heads)),
        _judge("previous_buckets", _previous_buckets(heads)),
        _judge("quantiles_ordered", ((name, head["quantiles_ordered"]) for name, head in heads.items())),
        _judge("coverage", ((name, _covered(head["coverage"]["overall"]["value"])) for name, head in heads.items())),
        _judge("beats_comparators", _beats(heads)),
    ]
    return {"passed": all(check.verdict == PASS for check in checks), "checks": [check._asdict() for check in checks]}


def _beats(heads: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, bool]]:
    for name in NORTH_STAR:
        if name not in heads:
            yield f"{name} has no forecast", False
            continue
        for comparator in COMPARATORS:
            yield f"{name} against {comparator}", better(heads[name]["verdicts"][comparator])


def _previous_spearman(heads: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, bool]]:
    for name in NORTH_STAR:
        change = heads.get(name, {}).get("differences", {}).get("previous")
        if change is not None:
            value = change["overall"]["spearman"]["value"]
            yield name, value is not None and value >= -_TOLERANCE


def _previous_buckets(heads: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, bool]]:
    for name, head in heads.items():
        for bucket, cell in head["differences"].get("previous", {}).get("buckets", {}).items():
            if cell["n"] >= LOW_N:
                yield (
                    f"{name} {bucket}",
                    all(verdict(metric, cell[metric]) != "worse" for metric in ("rmse", "spearman")),
                )


def _covered(value: float | None) -> bool:
    return value is not None and _COVERAGE[0] <= value <= _COVERAGE[1]


def _judge(name: str, results: Iterator[tuple[str, bool]]) -> Check:
    found = list(results)
    failed = [what for what, holds in found if not holds]
    if not found:
        return Check(name, NOT_JUDGED, "nothing to judge by")
    if failed:
        return Check(name, FAIL, "; ".join(failed))
    return Check(name, PASS, f"{len(found)} of {len(found)}")
