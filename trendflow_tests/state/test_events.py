"""The event contract: every type field by field, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.vocab import PROCESSORS, WARNINGS
from trendflow.state.events import Event, EventCodec
from trendflow.state.layout import event_key, event_number, run_folder
from trendflow_tests.state.naive import COMPONENT_STATES, RUN_STATES
from trendflow_tests.state.runs import IDENTITY, PATH, SCHEMAS

CODEC = EventCodec(SCHEMAS)
NOW = "2026-01-02T00:00:00.000Z"
PLANNED = {"name": "core_clip", "processor": "visual", "required": True, "depends_on": ["segmenter"]}
# Level, manager, subject, from, to, data: one complete event of every type.
EVENTS: dict[str, tuple[int, str, str, str | None, str | None, dict[str, Any]]] = {
    "manager_started": (2, "run", "run", None, None, {"holder": "worker-1"}),
    "run_status": (
        2,
        "run",
        PATH,
        None,
        "pending",
        {"run": IDENTITY.as_dict(), "profile": "starter", "plan": [PLANNED]},
    ),
    "processor_status": (
        3,
        "visual",
        "visual",
        "waiting",
        "running",
        {"started_at": NOW, "finished_at": None},
    ),
    "component_status": (
        3,
        "visual",
        "core_clip",
        "running",
        "error",
        {"attempt": 1, "error": "Too slow.", "error_code": "timeout"},
    ),
    "component_progress": (3, "visual", "core_clip", None, None, {"done": 1, "total": 2}),
    "checkpoint_flag": (3, "segmenter", "frames_ready", None, None, {}),
    "batch_assigned": (1, "global", "batch-1", None, None, {"opened_at": NOW, "closes_at": NOW, "runs": [PATH]}),
    "retry_scheduled": (
        3,
        "visual",
        "core_clip",
        "running",
        "waiting",
        {"error_code": "timeout", "attempt": 1, "wait_sec": 1.5},
    ),
    "oom_reduced": (3, "visual", "core_clip", None, None, {"batch_size": 8, "reduced_to": 4}),
    "processing_completed_from_cache": (2, "run", PATH, None, None, {}),
    "resume_from_checkpoint": (3, "visual", "core_clip", None, None, {}),
    "cache_check_failed": (3, "visual", "core_clip", None, None, {"error_code": "artifact_validation_failed"}),
    "warning": (2, "run", PATH, None, None, {"code": "av_drift"}),
    "cost_recorded": (2, "run", PATH, None, None, {"rows": 3}),
    "cancel_requested": (2, "control", PATH, None, None, {}),
    "recovered": (1, "global", "global", None, None, {"void": [7]}),
}
# The list of the specification.
TYPES = (
    "manager_started",
    "run_status",
    "processor_status",
    "component_status",
    "component_progress",
    "checkpoint_flag",
    "batch_assigned",
    "retry_scheduled",
    "oom_reduced",
    "processing_completed_from_cache",
    "resume_from_checkpoint",
    "cache_check_failed",
    "warning",
    "cost_recorded",
    "cancel_requested",
    "recovered",
)


def document(kind: str, **changes: Any) -> dict[str, Any]:
    level, manager, subject, source, to, data = EVENTS[kind]
    made = {
        "seq": 8,
        "event_id": "0" * 32,
        "ts": NOW,
        "level": level,
        "manager": manager,
        "epoch": 0 if manager == "control" else 1,
        "type": kind,
        "subject": subject,
        "from": source,
        "to": to,
        "data": dict(data),
    }
    return {**made, **changes}


def readable(made: dict[str, Any]) -> bool:
    """Whether it can be read, which the whole schema must agree with."""
    found = CODEC.decode(json.dumps(made).encode())
    assert (found is not None) == SCHEMAS.document_validator("state_event_v1").is_valid(made)
    return found is not None


def test_the_types_are_those_of_the_specification() -> None:
    assert set(SCHEMAS.documents["state_event_v1"]["properties"]["type"]["enum"]) == set(TYPES) == set(EVENTS)


def test_the_words_are_those_of_the_contract() -> None:
    words = SCHEMAS.documents["state_event_v1"]["$defs"]
    assert set(words["component_state"]["enum"]) == set(COMPONENT_STATES)
    assert set(words["run_state"]["enum"]) == set(RUN_STATES)
    assert set(words["processor"]["enum"]) == PROCESSORS
    for code in WARNINGS:
        assert readable(document("warning", data={"code": code}))


@pytest.mark.parametrize("kind", TYPES)
def test_an_event_comes_back_as_it_was_written(kind: str) -> None:
    made = document(kind)
    assert readable(made)
    event = CODEC.decode(json.dumps(made).encode(), 8)
    assert event is not None
    data = CODEC.encode(event)
    assert (json.loads(data), CODEC.decode(data, 8)) == (made, event)
    assert CODEC.decode(data, 9) is None


@pytest.mark.parametrize("kind", TYPES)
def test_no_field_may_be_absent_invented_or_of_another_kind(kind: str) -> None:
    made = document(kind)
    for key in made:
        assert not readable({other: value for other, value in made.items() if other != key})
    assert not readable({**made, "note": "text"})
    assert not readable({**made, "data": {**made["data"], "note": "text"}})
    for key, value in made["data"].items():
        assert not readable({**made, "data": {**made["data"], key: {"odd": [value]}}})
        less = {other: kept for other, kept in made["data"].items() if other != key}
        assert readable({**made, "data": less}) == (kind == "manager_started")
    for key, value in (
        ("seq", 0),
        ("event_id", "x"),
        ("ts", "yesterday"),
        ("level", 4),
        ("manager", "nobody"),
        ("epoch", -1),
        ("type", "component_started"),
        ("subject", "../.."),
        ("to", "finished"),
    ):
        assert not readable({**made, key: value})


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("component_status", {"level": 2, "manager": "run"}),
        ("component_status", {"manager": "run"}),
        ("component_status", {"to": "success"}),
        ("component_status", {"to": "skipped", "data": {"attempt": 1}}),
        ("component_status", {"to": "queued", "data": {"attempt": 1}}),
        ("retry_scheduled", {"from": "waiting"}),
        ("retry_scheduled", {"level": 2, "manager": "run"}),
        ("retry_scheduled", {"subject": PATH}),
        ("retry_scheduled", {"level": 2, "manager": "run", "subject": PATH}),
        ("run_status", {"from": "pending", "to": "recovering", "data": {}}),
        ("run_status", {"from": "running", "to": "error", "data": {}}),
        ("run_status", {"level": 3, "manager": "visual"}),
        ("warning", {"manager": "control", "epoch": 0}),
        ("cancel_requested", {"epoch": 1}),
        ("manager_started", {"epoch": 0}),
        ("checkpoint_flag", {"subject": "text_ready"}),
        ("batch_assigned", {"level": 2, "manager": "run"}),
    ],
)
def test_types_levels_and_states_that_do_not_go_together(kind: str, changes: dict[str, Any]) -> None:
    assert not readable(document(kind, **changes))


def test_a_run_may_be_retried_as_a_component_may() -> None:
    assert readable(document("retry_scheduled", level=2, manager="run", subject=PATH, **{"from": None, "to": None}))


def test_what_breaks_the_contract_is_not_encoded() -> None:
    made = document("warning", data={"code": "private text"})
    with pytest.raises(TrendFlowError) as caught:
        CODEC.encode(Event(source=made.pop("from"), **made))
    assert caught.value.error_code == "artifact_validation_failed"
    assert "private" not in str(caught.value)


def test_keys() -> None:
    assert run_folder(PATH) == "state/upload/my-video/run-1"
    assert event_key("state/_global", 7) == "state/_global/events/000000000007.json"
    assert event_number("state/_global/events/000000000007.json") == 7
    assert event_number("state/_global/events/7.json") is None
    for wrong in ("upload/my-video", "upload/my-video/run-1/x", "tape/my-video/run-1", "../../x"):
        with pytest.raises(TrendFlowError):
            run_folder(wrong)
    with pytest.raises(TrendFlowError):
        event_key("state/_global", 10**12)
