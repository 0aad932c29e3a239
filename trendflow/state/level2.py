"""Level 2, the run (`run_state_v1`): the reducer of `run_state.json`."""

from __future__ import annotations

from trendflow.contracts.errors import ERROR_RULES
from trendflow.contracts.vocab import RUN_STAGES
from trendflow.state.documents import Change, Document, fresh, reduce_event
from trendflow.state.events import Event
from trendflow.state.layout import RUN
from trendflow.state.transitions import COMPONENT_END, RUN_END, run_may

SCHEMA = "run_state_v1"
FLAGS = ("audio_ready", "frames_ready", "ocr_ready")

_STAGE_OF = {"dataset": "features"}


def empty() -> Document:
    """The document before the run was accepted: `status` is None and nothing may be stored of it."""
    return {**fresh(SCHEMA), "status": None}


def may_be_retried(document: Document) -> bool:
    """Whether the run ended of an error that may have passed, so that the scheduler may launch it again by itself.

    A request to cancel such a run keeps the scheduler from that, and holds for what it has launched already. It does
    not hold for the attempt of somebody else.
    """
    return document["status"] == "error" and ERROR_RULES[document["error_code"]].max_retries > 0


def apply(document: Document, event: Event) -> Document:
    if document["status"] is None and event.type not in ("manager_started", "run_status", "recovered"):
        return {**document, "last_seq": max(document["last_seq"], event.seq)}
    return reduce_event(document, event, RUN, _CHANGES)


def _run_status(document: Document, event: Event) -> Document:
    data, to = event.data, event.to
    if event.source != document["status"]:
        return document
    if document["status"] is None:
        return _accepted(document, event) if "plan" in data and run_may(None, to, new_attempt=False) else document
    attempt = data.get("attempt", document["attempt"])
    if not run_may(document["status"], to, new_attempt=attempt > document["attempt"]):
        return document
    changed = {
        **document,
        "status": to,
        "attempt": attempt,
        "error": data.get("error"),
        "error_code": data.get("error_code"),
        "finished_at": event.ts if to in RUN_END else None,
        "relaunch_scheduled": None,
    }
    if to == "recovering":
        changed["warnings"] = []  # what stays done repeats its own
        if document["status"] in RUN_END and document["relaunch_scheduled"] is None:
            changed["cancel_requested_at"] = None  # it was meant for the attempt that has ended, not for a person's own
    if to == "running":
        changed["started_at"] = document["started_at"] or event.ts
        changed["resolved_models"] = data.get("resolved_models", document["resolved_models"])
    return _count(changed, 0)


def _accepted(document: Document, event: Event) -> Document:
    plan = event.data["plan"]
    waiting = {"status": "waiting", "started_at": None, "finished_at": None}
    return {
        **document,
        "run": dict(event.data["run"]),
        "profile": event.data["profile"],
        "status": event.to,
        "stage": RUN_STAGES[0],
        "progress": {"overall": 0.0, "done": 0, "total": len(plan)},
        "processors": {component["processor"]: waiting for component in plan},
        "resolved_models": {},
        "checkpoints": dict.fromkeys(FLAGS, False),
        "warnings": [],
        "retry_count": 0,
        "error": None,
        "error_code": None,
        "attempt": 1,
        "submitted_at": event.ts,
        "started_at": None,
        "finished_at": None,
        "cancel_requested_at": None,
        "relaunch_scheduled": None,
    }


def _processor_status(document: Document, event: Event) -> Document:
    if event.subject not in document["processors"]:
        return document
    processors = {**document["processors"], event.subject: {"status": event.to, **event.data}}
    begun = {_STAGE_OF.get(name, name) for name, row in processors.items() if row["started_at"] is not None}
    stage = max(begun, key=RUN_STAGES.index, default=RUN_STAGES[0])
    return {**document, "processors": processors, "stage": stage}


def _component_status(document: Document, event: Event) -> Document:
    return _count(document, (event.to in COMPONENT_END) - (event.source in COMPONENT_END))


def _count(document: Document, change: int) -> Document:
    """`overall` is the share of components that ended. It falls only while the run recovers."""
    before = document["progress"]
    done = min(max(before["done"] + change, 0), before["total"])
    share = done / before["total"]
    overall = share if document["status"] == "recovering" else max(before["overall"], share)
    return {**document, "progress": {**before, "overall": overall, "done": done}}


def _retry_scheduled(document: Document, event: Event) -> Document:
    of_run = {"relaunch_scheduled": event.data["attempt"]} if event.level == 2 else {}
    return {**document, **of_run, "retry_count": document["retry_count"] + 1}


def set_flag(document: Document, event: Event) -> Document:
    """Raise one of the flags that hand over between processors; levels 2 and 3 both show them."""
    return {**document, "checkpoints": {**document["checkpoints"], event.subject: True}}


def _warning(document: Document, event: Event) -> Document:
    return {**document, "warnings": sorted({*document["warnings"], event.data["code"]})}


def _cancel_requested(document: Document, event: Event) -> Document:
    return {**document, "cancel_requested_at": document["cancel_requested_at"] or event.ts}


_CHANGES: dict[str, Change] = {
    "run_status": _run_status,
    "processor_status": _processor_status,
    "component_status": _component_status,
    "retry_scheduled": _retry_scheduled,
    "checkpoint_flag": set_flag,
    "warning": _warning,
    "cancel_requested": _cancel_requested,
}
