"""The document of alarms: what is raised, what goes on, what ends; and what of stored runs it is judged by."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from trendflow.alarms.book import KEPT, KEY, AlarmBook
from trendflow.alarms.ended_runs import EndedRuns
from trendflow.alarms.rules import Alarm
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import upsert_row
from trendflow.state.global_manager import GlobalManager
from trendflow.state.run_manager import RunManager
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow_tests.state.runs import IDENTITY, PLAN, SCHEMAS, FixedClock, memory, states_in
from trendflow_tests.storage.runs import first_manifest, store_component

FIRST, SECOND, THIRD = (f"2026-01-02T00:0{minute}:00.000Z" for minute in range(3))
TIMEOUT = Alarm("error_code", "timeout", 0.06, 0.05, 200, error_code="timeout")
MEMORY = Alarm("out_of_memory", "", 0.2, 0.1, 200, error_code="out_of_memory")


@pytest.fixture
def store() -> ObjectStore:
    return memory()


def test_an_alarm_is_raised_goes_on_and_ends(store: ObjectStore) -> None:
    book = AlarmBook(store, SCHEMAS)
    assert book.active() == []
    first = book.update([TIMEOUT], at=FIRST)
    assert [row["subject"] for row in first.raised] == ["timeout"]
    second = book.update([replace(TIMEOUT, value=0.08), MEMORY], at=SECOND)
    assert [row["rule"] for row in second.raised] == ["out_of_memory"]
    assert [(row["rule"], row["value"], row["since"]) for row in book.active()] == [
        ("error_code", 0.08, FIRST),
        ("out_of_memory", 0.2, SECOND),
    ]
    third = book.update([MEMORY], at=THIRD)
    assert (third.raised, [row["rule"] for row in third.active]) == ((), ["out_of_memory"])
    assert [(row["subject"], row["since"], row["until"]) for row in third.ended] == [("timeout", FIRST, THIRD)]
    assert json.loads(store.get(KEY))["ended"] == list(third.ended)


def test_a_look_that_changes_nothing_writes_nothing(store: ObjectStore) -> None:
    book = AlarmBook(store, SCHEMAS)
    book.update([], at=FIRST)
    assert not store.exists(KEY)
    book.update([TIMEOUT], at=FIRST)
    before = store.get(KEY)
    assert book.update([TIMEOUT], at=SECOND).raised == ()
    assert store.get(KEY) == before


def test_only_the_latest_ends_are_kept(store: ObjectStore) -> None:
    book = AlarmBook(store, SCHEMAS)
    for number in range(KEPT + 5):
        book.update([replace(TIMEOUT, subject=f"code_{number}")], at=FIRST)
    ended = json.loads(store.get(KEY))["ended"]
    assert [row["subject"] for row in ended] == [f"code_{number}" for number in reversed(range(4, KEPT + 4))]


def test_a_damaged_document_is_told_to_readers_and_replaced_by_the_next_look(store: ObjectStore) -> None:
    book = AlarmBook(store, SCHEMAS)
    store.put(KEY, b"{")
    with pytest.raises(TrendFlowError) as caught:
        book.active()
    assert caught.value.error_code == "artifact_validation_failed"
    book.update([TIMEOUT], at=FIRST)
    assert [row["subject"] for row in book.active()] == ["timeout"]


def test_what_is_no_alarm_is_not_stored(store: ObjectStore) -> None:
    with pytest.raises(TrendFlowError, match="not valid"):
        AlarmBook(store, SCHEMAS).update([replace(TIMEOUT, subject="a title, or an id/1")], at=FIRST)
    assert not store.exists(KEY)


def test_ended_runs_are_read_from_level_1_manifests_and_states(store: ObjectStore) -> None:
    clock = FixedClock()
    states, results = states_in(store, clock), ResultStore(store)
    manager = GlobalManager.open(states, holder="daemon")
    ended = EndedRuns(states, results)
    assert ended.latest(200) == []
    for seconds, name, status in ((1, "good", "success"), (2, "lost", "error"), (3, "stopped", "cancelled")):
        clock.seconds = seconds
        identity = replace(IDENTITY, run_id=name)
        results.create_manifest(first_manifest(identity))
        manager.run_status(identity.run_path, status)
        if name == "lost":
            run = RunManager.create(states, identity, "starter", PLAN, holder="api")
            run.fail(TrendFlowError("internal_error", "The worker was lost."))
        if name == "good":
            row = store_component(results, identity, "core_clip", {"values": np.ones(3)})
            small = {**row, "batching": {**row["batching"], "oom_retries": 1}}
            empty = {**row, "name": "cut_detection", "status": "empty", "empty_reason": "video_too_short"}
            error = {**row, "name": "uniqueness", "status": "error", "error_code": "timeout", "error": "Slow."}
            for changed in (small, empty, error):
                results.update_manifest(identity.run_path, lambda found, changed=changed: upsert_row(found, changed))
    manager.run_status("upload/gone/gone", "success")
    gone, lost, good = ended.latest(200)
    assert (gone.status, gone.error_codes, gone.empty_reasons) == ("success", frozenset(), frozenset())
    assert (lost.status, lost.error_codes, lost.out_of_memory) == ("error", {"internal_error"}, False)
    assert (good.status, good.error_codes, good.empty_reasons) == ("success", {"timeout"}, {"video_too_short"})
    assert good.out_of_memory
    assert ended.latest(1) == [gone]
    store.put(f"result_store/{IDENTITY.platform_id}/{IDENTITY.video_id}/good/manifest.json", b"{")
    assert ended.latest(200)[-1].error_codes == {"artifact_validation_failed"}, "the earlier answer was forgotten"


@pytest.mark.parametrize(
    ("digest", "component", "code", "counted"),
    [
        (None, "text_processor", "dependency_missing", set()),
        (None, "text_processor", "timeout", {"timeout"}),
        (None, "loudness_extractor", "dependency_missing", {"dependency_missing"}),
        ("d" * 64, "text_processor", "dependency_missing", {"dependency_missing"}),
    ],
)
def test_videos_submitted_without_text_are_no_failure_of_the_deployment(
    store: ObjectStore, digest: str | None, component: str, code: str, counted: set[str]
) -> None:
    states, results = states_in(store, FixedClock()), ResultStore(store)
    results.create_manifest(first_manifest(IDENTITY))
    row = store_component(results, IDENTITY, "core_clip", {"values": np.ones(3)})
    failed = {**row, "name": component, "status": "error", "error_code": code, "error": "It went wrong."}
    results.update_manifest(
        IDENTITY.run_path,
        lambda found: upsert_row({**found, "run": {**found["run"], "document_digest": digest}}, failed),
    )
    GlobalManager.open(states, holder="daemon").run_status(IDENTITY.run_path, "success")
    (run,) = EndedRuns(states, results, ["text_processor"]).latest(200)
    assert run.error_codes == counted
