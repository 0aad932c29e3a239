"""The quality gate in words, for page, card and asset checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.gate import (
    ACCEPTED_COVERAGE,
    BEATS,
    COVERAGE,
    FAIL,
    NO_FORECAST,
    NOT_JUDGED,
    ORDERED,
    PASS,
    PREVIOUS_BUCKETS,
    PREVIOUS_ORDER,
)
from trendflow.presentation.forecast_texts import BUCKETS, COMPARATORS, head_title
from trendflow.presentation.formatting import plural

_LEAST, _MOST = ACCEPTED_COVERAGE
ACCEPTED = f"{100 * _LEAST:.0f} to {100 * _MOST:.0f} %"
"""Shares of outcomes that the interval may hold, in words."""
TITLES: Mapping[str, str] = {
    PREVIOUS_ORDER: "Orders videos no worse than the current model, 14 and 21 days",
    PREVIOUS_BUCKETS: "No age group is forecast worse than by the current model",
    ORDERED: "Quantiles are in order in every row",
    COVERAGE: f"The interval holds {ACCEPTED} of the outcomes",
    BEATS: "Shown to beat every formula, 14 and 21 days",
}
WORDS: Mapping[str, str] = {PASS: "passed", FAIL: "not passed", NOT_JUDGED: "not judged"}
_AGAINST = {**COMPARATORS, **BUCKETS, NO_FORECAST: "no model"}


def gate_details(check: Mapping[str, Any]) -> list[str]:
    """Where a rule of the gate fails, one line per head, or in how many cases it holds."""
    if check["verdict"] == NOT_JUDGED:
        return ["There is nothing to judge by: the run was not compared with a current model."]
    if check["verdict"] == PASS:
        return [f"Holds in all {plural(check['judged'], 'case')}."]
    places: dict[str, list[str]] = {}
    for failed in check["failed"]:
        against = places.setdefault(failed["head"], [])
        if failed["against"] is not None:
            against.append(_AGAINST[failed["against"]])
    return [f"Not {head_title(head).lower()}" + _against(names) for head, names in places.items()]


def _against(names: Sequence[str]) -> str:
    return f": {' · '.join(names)}" if names else ""


def gate_summary(gate: Mapping[str, Any]) -> str:
    """All rules in one line, by their verdict."""
    if gate["passed"]:
        return "passed"
    by_verdict: dict[str, list[str]] = {}
    for check in gate["checks"]:
        by_verdict.setdefault(check["verdict"], []).append(TITLES[check["name"]])
    return "; ".join(f"{word}: {' · '.join(by_verdict[key])}" for key, word in WORDS.items() if key in by_verdict)
