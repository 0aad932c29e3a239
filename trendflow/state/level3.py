"""Level 3, one processor of a run (`state_processor_v1`): the reducer of `state_<processor>.json`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from trendflow.state.documents import Change, Document, fresh, reduce_event
from trendflow.state.events import Event
from trendflow.state.level2 import FLAGS, set_flag
from trendflow.state.transitions import COMPONENT_END, DONE, component_may, processor_state, run_may

SCHEMA = "state_processor_v1"


def empty(processor: str) -> Document:
    """The document before the run was accepted: `run` is None and nothing may be stored of it."""
    return {**fresh(SCHEMA), "processor": {"name": processor}, "run": None, "components": {}}


def apply(document: Document, event: Event) -> Document:
    if document["run"] is None and event.type not in ("manager_started", "run_status", "recovered"):
        return {**document, "last_seq": max(document["last_seq"], event.seq)}
    return reduce_event(document, event, document["processor"]["name"], _CHANGES)


def _run_status(document: Document, event: Event) -> Document:
    if document["run"] is None:
        accepts = event.source is None and "plan" in event.data and run_may(None, event.to, new_attempt=False)
        return _accepted(document, event) if accepts else document
    if event.to != "recovering":
        return document
    # What did not succeed starts again from nothing.
    components = {
        name: row if row["status"] in DONE else {**row, "progress": 0.0, "done": 0, "total": 0}
        for name, row in document["components"].items()
    }
    return {**document, "components": components}


def _accepted(document: Document, event: Event) -> Document:
    name = document["processor"]["name"]
    planned = sorted((row for row in event.data["plan"] if row["processor"] == name), key=lambda row: str(row["name"]))
    components = {row["name"]: _component(row) for row in planned}
    accepted = {
        **document,
        "run": dict(event.data["run"]),
        "components": components,
        "checkpoints": dict.fromkeys(FLAGS, False),
    }
    return _with_processor(accepted, event) if components else accepted


def _component(planned: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "status": "waiting",
        "required": planned["required"],
        "owner": None,
        "depends_on": list(planned["depends_on"]),
        "wait_for": list(planned["depends_on"]),
        "started_at": None,
        "finished_at": None,
        "error": None,
        "error_code": None,
        "retry_count": 0,
        "artifact_paths": [],
        "progress": 0.0,
        "done": 0,
        "total": 0,
        "cache_hit": False,
        "attempt": 1,
    }


def _component_status(document: Document, event: Event) -> Document:
    changed = _waiting_lists(document, event)
    row = document["components"].get(event.subject)
    data = event.data
    if row is None or event.source != row["status"]:
        return changed
    newer, cached = data["attempt"] > row["attempt"], data.get("cache_hit", False)
    if not component_may(row["status"], event.to, new_attempt=newer, cached=cached):
        return changed
    ended = event.to in COMPONENT_END
    new = {
        **row,
        "status": event.to,
        "attempt": data["attempt"],
        "owner": data.get("owner", row["owner"]),
        "retry_count": 0 if newer else row["retry_count"],  # those of its last attempt; level 2 counts them all
        "finished_at": event.ts if ended else None,
        "error": data.get("error", data.get("because")),
        "error_code": data.get("error_code"),
        "artifact_paths": list(data.get("artifact_paths", ())),
        "cache_hit": data.get("cache_hit", False),
        "done": data.get("done", row["done"]),
        "total": data.get("total", row["total"]),
    }
    if event.to == "running":
        new.update(started_at=event.ts, error_code=row["error_code"])  # the last one stays until the component ends
    elif event.to == "waiting":
        new.update(started_at=None, owner=None)
    elif event.to in DONE:
        new.update(started_at=row["started_at"] or event.ts, progress=1.0)
    return _with_component(changed, event, new)


def _component_progress(document: Document, event: Event) -> Document:
    row = document["components"].get(event.subject)
    if row is None or row["status"] != "running":
        return document
    done, total = event.data["done"], event.data["total"]
    # What was reached stays: a retry begins again with its units, not with the picture that a person has of it.
    progress = max(row["progress"], min(done / total, 1.0))
    return _with_component(document, event, {**row, "done": done, "total": total, "progress": progress})


def _retry_scheduled(document: Document, event: Event) -> Document:
    changed = _waiting_lists(document, event)
    row = document["components"].get(event.subject)
    if row is None or row["status"] != event.source:
        return changed
    new = {**row, "status": "waiting", "started_at": None, "owner": None, "done": 0}
    new.update(error_code=event.data["error_code"], retry_count=row["retry_count"] + 1)
    return _with_component(changed, event, new)


def _waiting_lists(document: Document, event: Event) -> Document:
    """Components wait for a dependency until it ended, whichever processor it belongs to."""
    waits = [name for name, row in document["components"].items() if event.subject in row["depends_on"]]
    if not waits:
        return document
    components = dict(document["components"])
    for name in waits:
        row = components[name]
        left = {*row["wait_for"], event.subject} - ({event.subject} if event.to in COMPONENT_END else set())
        components[name] = {**row, "wait_for": [dep for dep in row["depends_on"] if dep in left]}
    return {**document, "components": components}


def _with_component(document: Document, event: Event, row: dict[str, Any]) -> Document:
    return _with_processor({**document, "components": {**document["components"], event.subject: row}}, event)


def _with_processor(document: Document, event: Event) -> Document:
    """The document with the section `processor` as it follows from the components."""
    rows = list(document["components"].values())
    before = document["processor"]
    status = processor_state(rows)
    started = before.get("started_at")
    if started is None and any(row["started_at"] is not None for row in rows):
        started = event.ts
    finished = None
    if all(row["status"] in COMPONENT_END for row in rows):
        finished = before.get("finished_at") or event.ts
    failures = [row for row in rows if row["required"] and row["status"] in ("error", "skipped")]
    failed = min(failures, key=lambda row: (row["status"] == "skipped", row["finished_at"]), default=None)
    processor = {
        "name": before["name"],
        "status": status,
        "started_at": started,
        "finished_at": finished,
        "duration_ms": None if finished is None else milliseconds(started, finished),
        "error": failed and failed["error"],
        "error_code": failed and failed["error_code"],
    }
    return {**document, "processor": processor}


def milliseconds(start: str | None, end: str | None) -> float | None:
    """Time between two moments of possibly different clocks, hence never below zero; None unless both are known."""
    if start is None or end is None:
        return None
    return max((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() * 1000, 0.0)


_CHANGES: dict[str, Change] = {
    "run_status": _run_status,
    "component_status": _component_status,
    "component_progress": _component_progress,
    "retry_scheduled": _retry_scheduled,
    "checkpoint_flag": set_flag,
}
