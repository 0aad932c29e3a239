"""What the last attempt at a run took, and with what: `scheduler_runtime_report.json`.

A pure function of the log of the run. What the log does not tell is null, and `reasons` of the same object says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import reduce
from typing import Any

from trendflow.state.documents import Change, Document, fresh, reduce_event
from trendflow.state.events import Event
from trendflow.state.layout import RUN
from trendflow.state.replay import no_run, replay_run
from trendflow.state.transitions import DONE, RUN_END

SCHEMA = "scheduler_runtime_report_v1"

_RESOURCES = ("unit", "units", "latency_ms_per_unit", "cpu_rss_peak_mb", "gpu_memory_per_task_mb", "batch_size")
_ORIGINS = ("cached", "computed", "failed", "not_executed", "resumed")
_MS, _SEC = timedelta(milliseconds=1), timedelta(seconds=1)

Span = tuple[str, str]
"""Begin and end, UTC."""


def runtime_report(events: Sequence[Event]) -> Document | None:
    """The report (`scheduler_runtime_report_v1`) by all events of a run's log; None while the run has not ended."""
    documents = replay_run(no_run(), events)
    run = documents[RUN]
    if run["status"] not in RUN_END:
        return None
    trace = reduce(lambda found, event: reduce_event(found, event, RUN, _CHANGES), events, _nothing())
    executions = trace["executions"]
    last = executions[-1] if executions and executions[-1]["attempt"] == run["attempt"] else None
    components = {
        name: _component(processor, row, run["attempt"], trace, name)
        for processor in run["processors"]
        for name, row in documents[processor]["components"].items()
    }
    origins = [row["origin"] for row in components.values()]
    used = {"worker": last and last["worker"], "knobs": last and last["knobs"]}
    return {
        "schema_version": SCHEMA,
        "run": run["run"],
        "profile": run["profile"],
        "status": run["status"],
        "error_code": run["error_code"],
        "attempt": run["attempt"],
        "finished_at": run["finished_at"],
        **used,
        "queue": _queue(run["submitted_at"], trace["queued_at"], run["started_at"]),
        "executions": [{name: value for name, value in row.items() if name != "knobs"} for row in executions],
        "deliveries": len(executions),
        "retries": trace["retries"],
        "cache": {**{name: origins.count(name) for name in _ORIGINS}, "checks_failed": trace["checks_failed"]},
        "processors": {name: _processor(name, row["status"], components, trace) for name, row in _sorted(run)},
        "components": components,
        "reasons": _reasons(used, "never_started" if last is None else "not_recorded"),
        "last_seq": run["last_seq"],
    }


def _sorted(run: Document) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted(run["processors"].items())


def _reasons(values: Mapping[str, Any], reason: str) -> dict[str, str]:
    """The same reason for everything that is not known."""
    return {name: reason for name, value in values.items() if value is None}


def _queue(submitted_at: str, queued_at: str | None, started_at: str | None) -> Document:
    """How long the run waited until its first execution began."""
    found = {
        "submitted_at": submitted_at,
        "queued_at": queued_at,
        "started_at": started_at,
        "submitted_to_queued_sec": _between(submitted_at, queued_at, _SEC),
        "queued_to_started_sec": _between(queued_at, started_at, _SEC),
    }
    return {**found, "reasons": _reasons(found, "never_queued" if queued_at is None else "never_started")}


def _component(processor: str, row: Document, attempt: int, trace: Document, name: str) -> Document:
    origin = _origin(row, attempt)
    spans: Sequence[Span] = trace["spans"].get(name, ()) if origin in ("computed", "failed") else ()
    begun = spans[0][0] if spans else trace["left"].get(name)
    is_left = name in trace["left"]
    took = {
        "started_at": begun,
        "finished_at": spans[-1][1] if spans and not is_left else None,
        "duration_ms": _sum(spans) if spans and not is_left else None,
    }
    costs = trace["costs"].get(name, {})
    known = origin in ("computed", "resumed") and costs.get("attempt") == row["attempt"]
    resources = {resource: costs[resource] if known else None for resource in _RESOURCES}
    unknown = "not_measured" if known else origin if origin not in ("computed", "resumed") else "not_recorded"
    return {
        "processor": processor,
        "status": row["status"],
        "origin": origin,
        "attempt": row["attempt"],
        "error_code": row["error_code"],
        "retry_count": row["retry_count"],
        **took,
        **resources,
        "oom_reductions": list(trace["oom_reductions"].get(name, ())),
        "reasons": {
            **_reasons(took, "worker_lost" if is_left else origin),
            **_reasons(resources, unknown),
        },
    }


def _origin(row: Document, attempt: int) -> str:
    """Where the end of a component comes from, as seen from the last attempt."""
    if row["status"] in DONE:
        return "resumed" if row["attempt"] < attempt else "cached" if row["cache_hit"] else "computed"
    return "failed" if row["status"] == "error" else "not_executed"


def _processor(name: str, status: str, components: Mapping[str, Document], trace: Document) -> Document:
    mine = [component for component, row in components.items() if row["processor"] == name]
    spans = sorted(span for component in mine for span in trace["spans"].get(component, ()))
    left = [begun for component, begun in trace["left"].items() if component in mine]
    started = min([*(begin for begin, _ in spans), *left], default=None)
    finished = None if left else max((end for _, end in spans), default=None)
    duration = _between(started, finished, _MS)
    took = {
        "started_at": started,
        "finished_at": finished,
        "duration_ms": duration,
        "components_ms": None if duration is None else _sum(spans),
        "gaps_ms": None if duration is None else max(duration - _sum(_joined(spans)), 0.0),
    }
    return {
        "status": status,
        "components": len(mine),
        "computed": sum(components[component]["origin"] == "computed" for component in mine),
        **took,
        "reasons": _reasons(took, "worker_lost" if left else "nothing_computed"),
    }


def _between(start: str | None, end: str | None, unit: timedelta) -> float | None:
    """Time between two moments of possibly different clocks, hence never below zero; None unless both are known."""
    if start is None or end is None:
        return None
    return max((datetime.fromisoformat(end) - datetime.fromisoformat(start)) / unit, 0.0)


def _sum(spans: Iterable[Span]) -> float:
    return sum(_between(begin, end, _MS) or 0.0 for begin, end in spans)


def _joined(spans: Iterable[Span]) -> list[Span]:
    """The time that at least one of these spans covers; they come in the order of their begin."""
    joined: list[Span] = []
    for begin, end in spans:
        if joined and begin <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((begin, end))
    return joined


def _nothing() -> Document:
    """What is noted of a log while it is read. The second half is about the attempt that it has come to."""
    return {
        **fresh(SCHEMA),
        "queued_at": None,
        "executions": [],
        "retries": {"run": 0, "components": 0},
        "costs": {},
        "attempt": 1,
        **_NEW_ATTEMPT,
    }


_NEW_ATTEMPT: Mapping[str, Any] = {
    "is_taken_over": False,
    "open": {},
    "spans": {},
    "left": {},
    "oom_reductions": {},
    "checks_failed": 0,
}
"""`open`: begin of what runs. `left`: of what ran when somebody else took the run over, to end it: nobody saw its end.
"""


def _manager_started(trace: Document, event: Event) -> Document:
    if event.manager != RUN:
        return trace
    executions = trace["executions"]
    return {**trace, "is_taken_over": bool(executions) and executions[-1]["outcome"] is None}


def _run_status(trace: Document, event: Event) -> Document:
    data, to, executions = event.data, event.to, trace["executions"]
    if to == "queued":
        return {**trace, "queued_at": trace["queued_at"] or event.ts}
    if to == "recovering":
        return {**trace, **_NEW_ATTEMPT, "attempt": data["attempt"], "executions": _ended(executions, "lost")}
    if to == "running":
        begun = {
            "attempt": trace["attempt"],
            "worker": data.get("worker"),
            "knobs": data.get("knobs"),
            "started_at": event.ts,
            "finished_at": None,
            "outcome": None,
            "error_code": None,
        }
        return {**trace, "executions": [*executions, begun], "is_taken_over": False}
    if to in RUN_END:
        left = trace["is_taken_over"]
        end = {"finished_at": None if left else event.ts, "error_code": data.get("error_code")}
        return {**trace, "executions": _ended(executions, "lost" if left else to, **end)}
    return trace


def _ended(executions: Sequence[Document], outcome: str, **end: Any) -> list[Document]:
    """The executions after the end of the last one, unless it is known by now."""
    return [{**row, **end, "outcome": outcome} if row["outcome"] is None else row for row in executions]


def _component_status(trace: Document, event: Event) -> Document:
    if event.to == "running":
        return {**trace, "open": {**trace["open"], event.subject: event.ts}}
    return _closed(trace, event)


def _closed(trace: Document, event: Event) -> Document:
    """A component does not run any more."""
    name = event.subject
    begun = trace["open"].get(name)
    if begun is None:
        return trace
    still = {other: begin for other, begin in trace["open"].items() if other != name}
    if trace["is_taken_over"]:
        return {**trace, "open": still, "left": {**trace["left"], name: begun}}
    spans = [*trace["spans"].get(name, ()), (begun, event.ts)]
    return {**trace, "open": still, "spans": {**trace["spans"], name: spans}}


def _retry_scheduled(trace: Document, event: Event) -> Document:
    whose = "run" if event.level == 2 else "components"
    retries = {**trace["retries"], whose: trace["retries"][whose] + 1}
    return {**_closed(trace, event), "retries": retries}


def _oom_reduced(trace: Document, event: Event) -> Document:
    reductions = trace["oom_reductions"]
    return {**trace, "oom_reductions": {**reductions, event.subject: [*reductions.get(event.subject, ()), event.data]}}


def _check_failed(trace: Document, event: Event) -> Document:
    return {**trace, "checks_failed": trace["checks_failed"] + 1}


def _cost_recorded(trace: Document, event: Event) -> Document:
    attempt = {"attempt": trace["attempt"]}
    found = {name: {**row, **attempt} for name, row in event.data.get("components", {}).items()}
    return {**trace, "costs": {**trace["costs"], **found}}


_CHANGES: dict[str, Change] = {
    "manager_started": _manager_started,
    "run_status": _run_status,
    "component_status": _component_status,
    "retry_scheduled": _retry_scheduled,
    "oom_reduced": _oom_reduced,
    "cache_check_failed": _check_failed,
    "cost_recorded": _cost_recorded,
}
