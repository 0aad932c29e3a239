"""Status of a run whose log is gone, or never was: logs are kept for days, manifests for weeks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from trendflow.contracts.manifest import Manifest, run_status
from trendflow.contracts.vocab import RUN_STAGES
from trendflow.state.status import StatusDocument

_STATES = {"ok": "success", "empty": "empty", "error": "error"}


def archived_status(manifest: Manifest, required: Collection[str]) -> StatusDocument:
    """The status document (`run_status_v1`) as the manifest has it: no units of work, no places in a queue.

    `required` names the components whose failure fails the run.
    """
    run, rows = manifest["run"], manifest["components"]
    status = run_status(manifest, required)
    failed: Mapping[str, Any] = {}
    if status == "error":
        failed = next((row for row in rows if row["status"] == "error"), {})
    elif status == "cancelled":
        failed = {"error": "The run was cancelled.", "error_code": status}
    components = {row["name"]: _component(row) for row in rows}
    components.update({entry["name"]: _SKIPPED for entry in run["skipped"]})
    ended = run["finished_at"] is not None
    return {
        "run_id": run["run_id"],
        "status": status,
        "stage": RUN_STAGES[-1] if ended else RUN_STAGES[0],
        "progress": {
            "overall": 1.0 if ended else 0.0,
            "current_processor": None,
            "current_component": None,
            "components": components,
        },
        "queue_position": None,
        "submitted_at": run["created_at"],
        "started_at": min((row["started_at"] for row in rows), default=None),
        "updated_at": run["updated_at"],
        "estimated_finish": None,
        "error": failed.get("error"),
        "error_code": failed.get("error_code"),
        "warnings": run["warnings"],
        "retry_count": run["retry_count"],
    }


def _component(row: Mapping[str, Any]) -> dict[str, Any]:
    copied = ("started_at", "finished_at", "duration_ms", "error", "error_code", "cache_hit")
    return {
        "status": _STATES[row["status"]],
        "progress": 1.0,
        "done": 0,
        "total": 0,
        **{name: row[name] for name in copied},
    }


_SKIPPED: Mapping[str, Any] = {
    "status": "skipped",
    "progress": 0.0,
    "done": 0,
    "total": 0,
    "started_at": None,
    "finished_at": None,
    "duration_ms": None,
    "error": None,
    "error_code": None,
    "cache_hit": False,
}
