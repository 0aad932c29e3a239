"""The status document (`run_status_v1`): what a caller sees of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from trendflow.contracts.canonical import digest_of, utc_text
from trendflow.state.documents import Document
from trendflow.state.level3 import milliseconds
from trendflow.state.store import RunView
from trendflow.state.transitions import COMPONENT_END

StatusDocument = dict[str, Any]

_WAITING = ("pending", "queued")
_COPIED = ("status", "progress", "started_at", "finished_at", "done", "total", "error", "error_code", "cache_hit")


def status_document(
    view: RunView,
    *,
    queue_position: int | None = None,
    expected_sec: Mapping[str, float] | None = None,
    starts_at: str | None = None,
) -> StatusDocument:
    """What stands in the log, and nothing that depends on when it is asked: equal states have equal documents.

    `queue_position` comes from level 1. `expected_sec` holds the expected seconds of components, one after the other;
    with them a running run gets an `estimated_finish`, counted from its last event, and one that waits gets it where
    `starts_at` (UTC) says when it is expected to begin. It is null when nothing is known of what is left.
    """
    run, components = view.run, view.components
    current = sorted(
        (row["started_at"], processor, name)
        for processor, document in view.processors.items()
        for name, row in document["components"].items()
        if row["status"] == "running"
    )
    return {
        "run_id": run["run"]["run_id"],
        "status": run["status"],
        "stage": run["stage"],
        "progress": {
            "overall": overall_progress(view),
            "current_processor": current[0][1] if current else None,
            "current_component": current[0][2] if current else None,
            "components": {name: _component(row) for name, row in components.items()},
        },
        "queue_position": queue_position,
        "submitted_at": run["submitted_at"],
        "started_at": run["started_at"],
        "updated_at": run["updated_at"],
        "estimated_finish": _estimated_finish(view, expected_sec or {}, starts_at),
        "error": run["error"],
        "error_code": run["error_code"],
        "warnings": run["warnings"],
        "retry_count": run["retry_count"],
    }


def etag(document: StatusDocument) -> str:
    """Entity tag of a document without its quotes: equal exactly for equal documents."""
    return digest_of(document)


def overall_progress(view: RunView) -> float:
    """Mean progress of the components in [0, 1]; one that ended counts in full. Falls only while the run recovers."""
    shares = [1.0 if row["status"] in COMPONENT_END else row["progress"] for row in view.components.values()]
    return math.fsum(shares) / len(shares)  # the same in whichever order the components come


def _component(row: Document) -> dict[str, Any]:
    return {**{name: row[name] for name in _COPIED}, "duration_ms": milliseconds(row["started_at"], row["finished_at"])}


def _estimated_finish(view: RunView, expected_sec: Mapping[str, float], starts_at: str | None) -> str | None:
    status = view.run["status"]
    since = view.run["updated_at"] if status == "running" else starts_at if status in _WAITING else None
    left = {name: row for name, row in view.components.items() if row["status"] not in COMPONENT_END}
    if since is None or (left and not left.keys() & expected_sec.keys()):
        return None
    seconds = math.fsum(expected_sec.get(name, 0.0) * (1 - row["progress"]) for name, row in left.items())
    return utc_text(datetime.fromisoformat(since) + timedelta(seconds=seconds))
