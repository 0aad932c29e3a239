"""The end report of a submission, from the traces that its runs left in the store."""

from __future__ import annotations

from typing import Any

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import component_row_from_meta, new_manifest, update_run, upsert_row
from trendflow.contracts.meta import error_meta
from trendflow.contracts.schema import validate_document
from trendflow.state.run_manager import Planned, RunManager
from trendflow.storage.result_store import ResultStore
from trendflow.submission.items import Submission
from trendflow.submission.message import Message
from trendflow.submission.outcomes import Outcomes
from trendflow.submission.report import Report, submission_list, submission_report
from trendflow_tests.contracts.valid_artifacts import valid_artifact
from trendflow_tests.state.runs import SCHEMAS, FixedClock
from trendflow_tests.submission.desks import USER, Deployment, draft, submission_id, video_id

PLAN = [
    Planned("core_clip", "visual", True),
    Planned("cut_detection", "visual", False),
    Planned("core_object_detections", "visual", False),
]
REQUIRED = ("core_clip",)
SHA = "b" * 64


def at(seconds: float) -> str:
    clock = FixedClock()
    clock.seconds = seconds
    return clock.utc()


def row(message: Message, name: str, error: TrendFlowError | None = None, **changed: Any) -> dict[str, Any]:
    """A manifest row of the run: its component succeeded, unless it is told otherwise."""
    schema = SCHEMAS.get(next(s.schema_version for s in SCHEMAS if s.producer == name))
    _, meta = valid_artifact(schema)
    if error is not None:
        versions = {"producer_version": "1.0.0", "schema_version": schema.schema_version}
        keys = {"idempotency_key": None, "input_digest": None}
        meta = error_meta(message.identity, error, producer=name, **versions, **keys)
    artifact = {
        "path": f"{name}/{name}.npz",
        "type": "npz",
        "size": 10,
        "sha256": SHA,
        "content_digest": SHA,
        "schema_version": schema.schema_version,
        "retention_class": "derived",
    }
    times = {"started_at": at(10), "finished_at": at(20), "duration_ms": 1.0}
    made = component_row_from_meta(meta, kind="core", artifacts=[artifact], **times)
    return {**made, **changed}


def store_manifest(behind: Deployment, message: Message, *rows: dict[str, Any], finished: float | None) -> None:
    results = ResultStore(behind.store)
    results.create_manifest(new_manifest(message.identity, at(0), "starter", {"type": "youtube_url"}))

    def fill(manifest: dict[str, Any]) -> dict[str, Any]:
        for each in rows:
            manifest = upsert_row(manifest, each)
        return manifest if finished is None else update_run(manifest, finished_at=at(finished))

    results.update_manifest(message.run_path, fill)


def run_of(behind: Deployment, message: Message) -> RunManager:
    """The run of a message, with a log, running since second 10."""
    behind.clock.seconds = 10
    manager = RunManager.create(behind.states, message.identity, "starter", PLAN, holder="sensor")
    manager.begin(worker="worker-1", device=None, resolved_models={})
    return manager


def fail(behind: Deployment, message: Message, code: str, seconds: float) -> None:
    """The run ends with an error of its required component."""
    manager = run_of(behind, message)
    error = TrendFlowError(code, "It went wrong.")
    behind.clock.seconds = seconds
    manager.component_started("core_clip")
    manager.component_failed("core_clip", error)
    manager.fail(error)


def report(behind: Deployment, submission: Submission, letters: Any = ()) -> Report:
    outcomes = Outcomes(behind.store, behind.states, behind.inbox, lambda profile: REQUIRED)
    made = submission_report(submission, outcomes.of(submission), letters)
    assert validate_document(SCHEMAS, "submission_report_v1", made) == []
    return made


def submit(behind: Deployment, *drafts: Message | TrendFlowError) -> Submission:
    return behind.desk.submit(submission_id("a"), USER, drafts)


def take_in(behind: Deployment) -> None:
    """Level 1 takes the submissions in; its manager goes."""
    queue, manager = behind.level1()
    queue.step()
    manager.close()


def test_a_new_submission_is_open_before_anybody_took_it() -> None:
    behind = Deployment()
    made = report(behind, submit(behind, draft("a", 0, 1), draft("a", 1, 1)))
    assert made["completeness"] == {"items": 2, "done": 0, "explained": 0, "open": 2, "gone": 0, "share": 0.0}
    assert [item["status"] for item in made["items"]] == ["pending", "pending"]
    assert not made["has_ended"]
    assert made["duration"]["whole_sec"] is None


def test_every_item_is_done_or_explained_in_the_end() -> None:
    behind = Deployment()
    cached = draft("e", 0, 2)
    behind.succeed(cached)
    ResultStore(behind.store).update_manifest(
        cached.run_path, lambda found: upsert_row(found, row(cached, "core_clip"))
    )
    well, half, broken, dead = draft("a", 0, 1), draft("a", 4, 4), draft("a", 5, 5), draft("a", 6, 6)
    refused = TrendFlowError("source_unavailable", "There is no such file.")
    submission = submit(behind, well, draft("a", 1, 2), draft("a", 2, 1), refused, half, broken, dead)
    take_in(behind)
    empty = {"status": "empty", "empty_reason": "no_detections_above_threshold"}
    store_manifest(
        behind, well, row(well, "core_clip", cache_hit=True), row(well, "core_object_detections", **empty), finished=40
    )
    optional = row(half, "cut_detection", TrendFlowError("timeout", "Too slow."))
    store_manifest(behind, half, row(half, "core_clip"), optional, finished=30)
    fail(behind, broken, "video_unreadable", 25)
    fail(behind, dead, "internal_error", 70)

    letter = {"run_key": dead.identity.partition_key, "error_code": "internal_error", "deliveries": 3, "at": at(60)}
    others = {**letter, "run_key": f"{video_id(99)}/r1"}
    made = report(behind, submission, [others, letter])
    assert made["has_ended"]
    assert made["completeness"] == {"items": 7, "done": 4, "explained": 3, "open": 0, "gone": 0, "share": 4 / 7}
    assert made["decisions"] == {"new": 4, "cached": 1, "duplicate": 1, "exists": 0, "refused": 1}
    assert [item["verdict"] for item in made["items"]] == ["done"] * 3 + ["explained", "done"] + ["explained"] * 2
    assert made["items"][2]["run_key"] == made["items"][0]["run_key"] == well.identity.partition_key
    assert made["failures"] == [
        {"error_code": "internal_error", "class": "permanent", "at": "run", "items": 1},
        {"error_code": "source_unavailable", "class": "permanent", "at": "submission", "items": 1},
        {"error_code": "video_unreadable", "class": "permanent", "at": "run", "items": 1},
    ]
    assert made["optional_failures"] == [{"component": "cut_detection", "error_code": "timeout", "runs": 1}]
    assert made["empties"] == [
        {"component": "core_object_detections", "empty_reason": "no_detections_above_threshold", "runs": 1}
    ]
    assert made["cache"] == {"items_answered": 2, "components": 4, "components_reused": 1}
    # Runs took 30, 20, 15 and 60 s from second 10 on; accepted at second 0, the last one ended at second 70.
    assert made["duration"] == {"whole_sec": 70.0, "run_median_sec": 25.0, "run_p95_sec": 60.0, "run_max_sec": 60.0}
    assert made["dead_letters"] == [letter]
    commands = [step["command"] for step in made["next_steps"]]
    assert f"trendflow retry {dead.identity.partition_key}" in commands
    assert f"trendflow retry {submission.submission_id}" not in commands  # nothing failed that would pass


def test_what_failed_of_something_that_passes_is_to_be_retried() -> None:
    behind = Deployment()
    first, second = draft("a", 0, 1), draft("a", 1, 2)
    submission = submit(behind, first, second)
    take_in(behind)
    fail(behind, first, "storage_unavailable", 20)
    fail(behind, second, "storage_unavailable", 30)
    steps = {step["command"]: step["what"] for step in report(behind, submission)["next_steps"]}
    assert f"trendflow retry {submission.submission_id}" in steps
    assert "storage_unavailable" in steps["trendflow doctor"]  # both items: no accident


def test_broken_videos_are_no_reason_to_examine_the_deployment() -> None:
    behind = Deployment()
    first, second = draft("a", 0, 1), draft("a", 1, 2)
    absent = TrendFlowError("source_unavailable", "There is no such file.")
    submission = submit(behind, first, second, absent, absent)
    take_in(behind)
    fail(behind, first, "video_unreadable", 20)
    fail(behind, second, "video_unreadable", 30)
    made = report(behind, submission)
    assert [failure["items"] for failure in made["failures"]] == [2, 2]
    assert [step["command"] for step in made["next_steps"]] == [f"trendflow show {first.identity.partition_key}"]


def test_a_run_at_work_is_open_with_its_status() -> None:
    behind = Deployment()
    message = draft("a", 0, 1)
    submission = submit(behind, message)
    queue, level1 = behind.level1()
    queue.step()
    run_of(behind, message)
    level1.run_status(message.run_path, "queued")
    (item,) = report(behind, submission)["items"]
    assert (item["status"], item["verdict"]) == ("running", "open")


def test_a_taken_run_id_explains_why_there_is_no_run() -> None:
    behind = Deployment()
    behind.succeed(draft("e", 0, 7, run_id="taken"))
    (item,) = report(behind, submit(behind, draft("a", 0, 7, run_id="taken")))["items"]
    assert (item["decision"], item["verdict"], item["error_code"]) == (
        "exists",
        "explained",
        "input_constraint_violated",
    )


def test_a_run_of_which_nothing_is_left_is_gone_and_not_open() -> None:
    behind = Deployment()
    message = draft("a", 0, 1)
    submission = submit(behind, message)
    take_in(behind)
    for folder in ("state/_global", f"state/{message.run_path}"):
        behind.store.delete_prefix(folder)
    made = report(behind, submission)
    assert (made["completeness"]["gone"], made["has_ended"]) == (1, True)


@pytest.mark.parametrize("taken", [False, True])
def test_the_list_counts_what_is_on_its_way(taken: bool) -> None:
    behind = Deployment()
    submit(behind, draft("a", 0, 1), draft("a", 1, 2), TrendFlowError("source_unavailable", "No file."))
    behind.clock.seconds = 5
    behind.desk.submit(submission_id("b"), USER, [TrendFlowError("source_unavailable", "No file.")])
    if taken:
        queue, level1 = behind.level1()
        queue.step()
        level1.run_status(draft("a", 0, 1).run_path, "cancelled")
    not_taken = {submission.submission_id for submission in behind.inbox.open()}
    found = submission_list(behind.inbox.recent(10), behind.states.read_global()["runs"], not_taken)
    assert validate_document(SCHEMAS, "submission_list_v1", found) == []
    rows = [(entry["submission_id"], entry["decisions"]["new"], entry["open_runs"]) for entry in found["submissions"]]
    assert rows == [(submission_id("b"), 0, 0), (submission_id("a"), 2, 1 if taken else 2)]
    assert [each.submission_id for each in behind.inbox.recent(1)] == [submission_id("b")]
