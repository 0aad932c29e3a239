"""The end report of a submission (`submission_report_v1`): what became of every item, and what to do about the rest."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from trendflow.contracts.errors import ERROR_RULES
from trendflow.state.transitions import RUN_END
from trendflow.submission.items import Cached, Duplicate, Exists, Item, New, Refused, Submission
from trendflow.submission.outcomes import Outcome

SCHEMA = "submission_report_v1"
LIST_SCHEMA = "submission_list_v1"
DECISIONS = ("new", "cached", "duplicate", "exists", "refused")
SYSTEMATIC = 0.05
"""Share of the items from which one error code is no accident any more."""
_OF_THE_ITEMS = frozenset(
    {"input_constraint_violated", "source_unavailable", "video_unreadable", "video_file_corrupted", "cancelled"}
)
"""Codes that tell what was submitted and what people did to it; the deployment has nothing to be examined for."""

Report = dict[str, Any]
Verdict = Literal["done", "explained", "open", "gone"]
"""`done`: a run that succeeded answers the item. `explained`: an error code says why none does. `open`: its run has not
ended. `gone`: nothing of its run is kept any more."""


def submission_report(
    submission: Submission, outcomes: Sequence[Outcome | None], dead_letters: Sequence[Mapping[str, Any]] = ()
) -> Report:
    """The report, from the outcome of each item (`Outcomes.of`).

    `dead_letters` are `run_key`, `error_code`, `deliveries` and `at` of runs that were given up; only those of this
    submission are reported. A run that answers several items counts once among runs.
    """
    items = [_item(item, outcome) for item, outcome in zip(submission.items, outcomes, strict=True)]
    own = _own_runs(submission, outcomes)
    verdicts = Counter(item["verdict"] for item in items)
    letters = [dict(letter) for letter in dead_letters if letter["run_key"] in {run.run_key for run in own}]
    report: Report = {
        "schema_version": SCHEMA,
        "submission_id": submission.submission_id,
        "user_id": submission.user_id,
        "accepted_at": submission.accepted_at,
        "has_ended": verdicts["open"] == 0,
        "completeness": {
            "items": len(items),
            **{name: verdicts[name] for name in ("done", "explained", "open", "gone")},
            "share": verdicts["done"] / len(items),
        },
        "decisions": _counts(DECISIONS, (item["decision"] for item in items)),
        "failures": _failures(items),
        "optional_failures": _component_counts([run for run in own if run.status == "success"], "error", "error_code"),
        "empties": _component_counts(own, "empty", "empty_reason"),
        "cache": _cache(items, own),
        "duration": _duration(submission, own, ended=verdicts["open"] == 0),
        "dead_letters": letters,
        "items": items,
    }
    return {**report, "next_steps": _next_steps(report)}


def submission_list(
    submissions: Sequence[Submission], level1: Mapping[str, Mapping[str, Any]], not_taken: Collection[str]
) -> dict[str, Any]:
    """Submissions in few words (`submission_list_v1`).

    `level1` are the runs that level 1 lists, `not_taken` the ids of submissions that it does not know yet.
    """
    return {
        "schema_version": LIST_SCHEMA,
        "submissions": [
            {
                "submission_id": submission.submission_id,
                "user_id": submission.user_id,
                "accepted_at": submission.accepted_at,
                "decisions": _counts(DECISIONS, map(decision_of, submission.items)),
                "open_runs": sum(
                    submission.submission_id in not_taken or _is_live(level1.get(message.run_path))
                    for _, message in submission.messages
                ),
            }
            for submission in submissions
        ],
    }


def _is_live(row: Mapping[str, Any] | None) -> bool:
    return row is not None and row["status"] not in RUN_END


def decision_of(item: Item) -> str:
    """The word for what was decided about an item."""
    match item:
        case New():
            return "new"
        case Cached():
            return "cached"
        case Duplicate():
            return "duplicate"
        case Exists():
            return "exists"
        case Refused():
            return "refused"


def _item(item: Item, outcome: Outcome | None) -> dict[str, Any]:
    refusal = refusal_of(item)
    known = None if outcome is None else (outcome.error_code, outcome.error)
    error_code, error = (refusal.error_code, refusal.error) if refusal else known or (None, None)
    return {
        "decision": decision_of(item),
        "verdict": _verdict(refusal, outcome),
        "same_as": item.same_as if isinstance(item, Duplicate) else None,
        "run_key": None if outcome is None else outcome.run_key,
        "status": None if outcome is None else outcome.status,
        "error_code": error_code,
        "error": error,
    }


def refusal_of(item: Item) -> Refused | None:
    """Why an item gets no run, also of one whose run id was given away before."""
    if isinstance(item, Exists):
        return Refused("input_constraint_violated", f"A run of the id {item.run_id} exists already.")
    return item if isinstance(item, Refused) else None


def _verdict(refusal: Refused | None, outcome: Outcome | None) -> Verdict:
    if refusal is not None:
        return "explained"
    if outcome is None or outcome.status is None:
        return "gone"
    if outcome.status == "success":
        return "done"
    return "explained" if outcome.has_ended else "open"


def _own_runs(submission: Submission, outcomes: Sequence[Outcome | None]) -> list[Outcome]:
    """The runs that were made for this submission."""
    answers = (outcomes[place] for place, _ in submission.messages)
    return [outcome for outcome in answers if outcome is not None]


def _counts(names: Sequence[str], found: Iterable[str]) -> dict[str, int]:
    counted = Counter(found)
    return {name: counted[name] for name in names}


def _failures(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Items that were refused or whose run failed, by error code, the most frequent first."""
    counted = Counter(
        (item["error_code"], "submission" if item["decision"] in ("refused", "exists") else "run")
        for item in items
        if item["verdict"] == "explained"
    )
    return [
        {
            "error_code": code,
            "class": None if code is None else ERROR_RULES[code].error_class,
            "at": at,
            "items": count,
        }
        for (code, at), count in sorted(counted.items(), key=lambda found: (-found[1], str(found[0])))
    ]


def _component_counts(runs: Sequence[Outcome], status: str, reason: str) -> list[dict[str, Any]]:
    """How many runs have a component in this status, by component and reason, the most frequent first."""
    counted = Counter((row["name"], row[reason]) for run in runs for row in run.rows if row["status"] == status)
    return [
        {"component": name, reason: word, "runs": count}
        for (name, word), count in sorted(counted.items(), key=lambda found: (-found[1], found[0]))
    ]


def _cache(items: Sequence[Mapping[str, Any]], own: Sequence[Outcome]) -> dict[str, int]:
    rows = [row for run in own for row in run.rows]
    return {
        "items_answered": sum(item["decision"] in ("cached", "duplicate") for item in items),
        "components": len(rows),
        "components_reused": sum(bool(row["cache_hit"]) for row in rows),
    }


def _duration(submission: Submission, own: Sequence[Outcome], *, ended: bool) -> dict[str, float | None]:
    """Seconds: of the whole submission once it has ended, and of its runs that did."""
    took = [
        _seconds(run.started_at, run.finished_at)
        for run in own
        if run.has_ended and run.started_at is not None and run.finished_at is not None
    ]
    last = max((run.finished_at for run in own if run.finished_at is not None), default=submission.accepted_at)
    return {
        "whole_sec": max(0.0, _seconds(submission.accepted_at, last)) if ended else None,
        "run_median_sec": statistics.median(took) if took else None,
        "run_p95_sec": sorted(took)[math.ceil(0.95 * len(took)) - 1] if took else None,
        "run_max_sec": max(took, default=None),
    }


def _seconds(start: str, end: str) -> float:
    return round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(), 3)


def _next_steps(report: Report) -> list[dict[str, str | None]]:
    """What a person may do now, the most useful first; `command` where one does it."""
    name, counts = report["submission_id"], report["completeness"]
    steps: list[dict[str, str | None]] = []

    def step(what: str, command: str | None = None) -> None:
        steps.append({"what": what, "command": command})

    if counts["open"]:
        step(f"not everything is finished ({counts['open']} left); watch it", f"trendflow submissions {name} --wait")
    for failure in report["failures"]:
        if failure["items"] > max(1, SYSTEMATIC * counts["items"]) and failure["error_code"] not in _OF_THE_ITEMS:
            step(f"{failure['error_code']} ended {failure['items']} items, which is no accident", "trendflow doctor")
    transient = sum(
        failure["items"] for failure in report["failures"] if failure["class"] == "transient" and failure["at"] == "run"
    )
    if transient:
        step("what failed of something that passes can be submitted again", f"trendflow retry {name}")
    for letter in report["dead_letters"]:
        step(
            f"{letter['run_key']} was given up after {letter['deliveries']} workers were lost; see their logs, then",
            f"trendflow retry {letter['run_key']}",
        )
    broken = next((item for item in report["items"] if item["status"] == "error"), None)
    if broken is not None:
        step("a run shows which component failed and why", f"trendflow show {broken['run_key']}")
    if counts["gone"]:
        step("of what is gone nothing is kept any more: the runs are too old or were deleted")
    return steps
