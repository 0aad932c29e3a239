"""Level 1, the deployment (`state_global_v1`): the reducer of `state_level1_global.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trendflow.contracts.vocab import RUN_STAGES
from trendflow.state.documents import Change, Document, fresh, reduce_event
from trendflow.state.events import Event
from trendflow.state.layout import GLOBAL
from trendflow.state.transitions import RUN_END, queue_may

SCHEMA = "state_global_v1"
KEPT = 1000
"""Runs that ended, and workers without a run, that are still listed."""

_PRIORITIES = ("high", "normal", "low")
_IN_LINE = ("pending", "queued")


def empty() -> Document:
    return {**fresh(SCHEMA), "runs": {}, "batches": {}, "workers": {}, "knobs": {}}


def apply(document: Document, event: Event) -> Document:
    return reduce_event(document, event, GLOBAL, _CHANGES)


def with_queue_positions(document: Document) -> Document:
    """The document with `queue_position`, counted from 1, of every run that waits.

    Positions of all runs move with every event, so the reducer leaves them alone and readers have them computed.
    """
    runs = document["runs"]
    line = [path for path, row in runs.items() if row["status"] in _IN_LINE]
    line.sort(key=lambda path: (_PRIORITIES.index(runs[path]["priority"]), runs[path]["submitted_at"], path))
    places = {path: place for place, path in enumerate(line, start=1)}
    return {
        **document,
        "runs": {path: {**row, "queue_position": places.get(path)} for path, row in runs.items()},
    }


def _manager_started(document: Document, event: Event) -> Document:
    return {**document, "knobs": dict(event.data.get("knobs", document["knobs"]))}


def _run_status(document: Document, event: Event) -> Document:
    path, data, to = event.subject, event.data, event.to
    row = document["runs"].get(path)
    if event.source != (row and row["status"]) or not queue_may(event.source, to):
        return document
    if row is None or (row["status"] in RUN_END and to in _IN_LINE):
        row = {**_NEW, "submitted_at": event.ts, "batch_id": row and row["batch_id"]}
    ended = to in RUN_END
    new = {
        **row,
        **{name: data[name] for name in ("stage", "priority", "submitted_at") if name in data},
        "status": to,
        "started_at": event.ts if to == "running" and row["started_at"] is None else row["started_at"],
        "finished_at": event.ts if ended else None,
    }
    runs = {**document["runs"], path: new}
    changed = {**document, "runs": runs, "workers": _workers(document["workers"], event)}
    return _pruned(changed) if ended else changed


_NEW: Mapping[str, Any] = {
    "stage": RUN_STAGES[0],
    "priority": "normal",
    "queue_position": None,
    "batch_id": None,
    "started_at": None,
}


def _workers(workers: Mapping[str, Any], event: Event) -> dict[str, Any]:
    """A run is on the worker that its last event named, and on none unless it runs or recovers."""
    path = event.subject
    named = event.data.get("worker") if event.to in ("running", "recovering") else None
    stays = named is None and event.to in ("running", "recovering")
    changed = {
        name: row if stays else {**row, "running": [other for other in row["running"] if other != path]}
        for name, row in workers.items()
    }
    if named is not None:
        running = changed.get(named["id"], {"running": []})["running"]
        changed[named["id"]] = {"device": named["device"], "heartbeat_at": event.ts, "running": [*running, path]}
    return changed


def _batch_assigned(document: Document, event: Event) -> Document:
    batch = {**event.data, "runs": list(event.data["runs"])}
    runs = dict(document["runs"])
    for path in runs.keys() & batch["runs"]:
        runs[path] = {**runs[path], "batch_id": event.subject}
    return {**document, "batches": {**document["batches"], event.subject: batch}, "runs": runs}


def _pruned(document: Document) -> Document:
    """Without the runs that ended longest ago, the batches nobody is left of, and workers not heard of for long."""
    runs = document["runs"]
    ended = sorted((row["finished_at"], path) for path, row in runs.items() if row["finished_at"] is not None)
    gone = {path for _, path in ended[:-KEPT]}
    if not gone:
        return document
    workers = document["workers"]
    idle = sorted((row["heartbeat_at"], name) for name, row in workers.items() if not row["running"])
    lost = {name for _, name in idle[:-KEPT]}
    kept = {path: row for path, row in runs.items() if path not in gone}
    batches = document["batches"]
    return {
        **document,
        "runs": kept,
        "batches": {name: row for name, row in batches.items() if kept.keys() & row["runs"]},
        "workers": {name: row for name, row in workers.items() if name not in lost},
    }


_CHANGES: dict[str, Change] = {
    "manager_started": _manager_started,
    "run_status": _run_status,
    "batch_assigned": _batch_assigned,
}
