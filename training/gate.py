"""The quality gate: may this model take the place of the current one? Words for its verdicts are in `gate_texts`.

Coverage and order are those of the quantiles that are shown; everything else is judged by the point forecast, which is
not shown, see `evaluation`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from training.comparators import COMPARATORS
from training.evaluation import better, verdict
from training.metrics import LOW_N

NORTH_STAR = ("views_14d", "views_21d", "likes_14d", "likes_21d")
ACCEPTED_COVERAGE = (0.75, 0.95)
"""Measured coverage of [p10, p90], nominal 0.80."""
_TOLERANCE = 0.01
PASS, FAIL, NOT_JUDGED = "pass", "fail", "not_judged"
PREVIOUS_ORDER, PREVIOUS_BUCKETS = "previous_spearman", "previous_buckets"
ORDERED, COVERAGE, BEATS = "quantiles_ordered", "coverage", "beats_comparators"
NO_FORECAST = "no_forecast"


class _Result(NamedTuple):
    """Whether a rule holds in one place: a head and, where there are several, what it was held `against`."""

    head: str
    against: str | None
    holds: bool


def quality_gate(heads: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """`gate` of `metrics.json`. `passed` is true only when every rule was judged and holds."""
    checks = [
        _judge(PREVIOUS_ORDER, _previous_spearman(heads)),
        _judge(PREVIOUS_BUCKETS, _previous_buckets(heads)),
        _judge(ORDERED, (_Result(name, None, head["quantiles_ordered"]) for name, head in heads.items())),
        _judge(
            COVERAGE,
            (_Result(name, None, _covered(head["coverage"]["overall"]["value"])) for name, head in heads.items()),
        ),
        _judge(BEATS, _beats(heads)),
    ]
    return {"passed": all(check["verdict"] == PASS for check in checks), "checks": checks}


def _beats(heads: Mapping[str, Mapping[str, Any]]) -> Iterator[_Result]:
    for name in NORTH_STAR:
        if name not in heads:
            yield _Result(name, NO_FORECAST, False)
            continue
        for comparator in COMPARATORS:
            yield _Result(name, comparator, better(heads[name]["verdicts"][comparator]))


def _previous_spearman(heads: Mapping[str, Mapping[str, Any]]) -> Iterator[_Result]:
    for name in NORTH_STAR:
        change = heads.get(name, {}).get("differences", {}).get("previous")
        if change is not None:
            value = change["overall"]["spearman"]["value"]
            yield _Result(name, None, value is not None and value >= -_TOLERANCE)


def _previous_buckets(heads: Mapping[str, Mapping[str, Any]]) -> Iterator[_Result]:
    for name, head in heads.items():
        for bucket, cell in head["differences"].get("previous", {}).get("buckets", {}).items():
            if cell["n"] >= LOW_N:
                holds = all(verdict(metric, cell[metric]) != "worse" for metric in ("rmse", "spearman"))
                yield _Result(name, bucket, holds)


def _covered(value: float | None) -> bool:
    return value is not None and ACCEPTED_COVERAGE[0] <= value <= ACCEPTED_COVERAGE[1]


def _judge(name: str, results: Iterator[_Result]) -> dict[str, Any]:
    found = list(results)
    failed = [{"head": result.head, "against": result.against} for result in found if not result.holds]
    word = NOT_JUDGED if not found else FAIL if failed else PASS
    return {"name": name, "verdict": word, "judged": len(found), "failed": failed}
