"""How the report of a submission looks on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trendflow.commands.console import out, styled, table
from trendflow.presentation.formatting import plural
from trendflow.submission.report import Report

_SHOWN = 20
_DURATIONS = {"whole_sec": "in all", "run_median_sec": "median run", "run_p95_sec": "p95", "run_max_sec": "longest"}


def print_report(report: Report) -> None:
    """Print a document `submission_report_v1`: counts first, then the items that are not done, then what to do."""
    counts, cache = report["completeness"], report["cache"]
    _line(f"submission {report['submission_id']} of {report['accepted_at'][:16].replace('T', ' ')} UTC")
    verdicts = ", ".join(f"{counts[name]} {name}" for name in ("done", "explained", "open", "gone") if counts[name])
    _line(f"{plural(counts['items'], 'item')}: {verdicts} ({counts['share']:.0%} done)")
    _line(
        f"{plural(cache['items_answered'], 'item')} answered by other runs; {cache['components_reused']} of "
        f"{cache['components']} components of the new runs from cache"
    )
    took = [(text, report["duration"][name]) for name, text in _DURATIONS.items()]
    known = [f"{text} {_time(seconds)}" for text, seconds in took if seconds is not None]
    if known:
        _line(f"duration: {', '.join(known)}")
    _counted("failures", report["failures"])
    _counted("components that failed in runs that succeeded without them", report["optional_failures"])
    _counted("components that found nothing", report["empties"])
    _counted("dead letters", report["dead_letters"])
    _done(report["items"])
    _items(report["items"])
    for step in report["next_steps"]:
        _line(f"→ {step['what']}" + (f": {step['command']}" if step["command"] else ""))


def _counted(title: str, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        columns = list(rows[0])
        shown = [["" if row[name] is None else str(row[name]) for name in columns] for row in rows]
        out.print()
        out.print(table(title, columns, shown, right=("items", "runs", "deliveries")))


def _done(items: Sequence[dict[str, Any]]) -> None:
    """Where the results are, of a submission that a person can look through."""
    rows = [[str(place), item["run_key"]] for place, item in enumerate(items, start=1) if item["verdict"] == "done"]
    if rows and len(items) <= _SHOWN:
        out.print()
        out.print(table("done", ["item", "run"], rows, right=("item",)))


def _items(items: Sequence[dict[str, Any]]) -> None:
    """What is not done, item by item."""
    left = [(place, item) for place, item in enumerate(items, start=1) if item["verdict"] != "done"]
    if not left:
        return
    rows = [
        [
            str(place),
            item["run_key"] or "",
            styled(item["status"]) if item["status"] else item["decision"],
            "" if item["error_code"] is None else f"{item['error_code']}: {item['error']}",
        ]
        for place, item in left[:_SHOWN]
    ]
    out.print()
    out.print(table("not done", ["item", "run", "status", "why"], rows, right=("item",)))
    if len(left) > len(rows):
        _line(f"… and {len(left) - len(rows)} more; --json lists all")


def _time(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _line(text: str) -> None:
    out.print(text, highlight=False, markup=False, soft_wrap=True)
