"""What the service tells of a run, and to whom, over real connections."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import update_run
from trendflow.contracts.schema import validate_document
from trendflow.storage.result_store import ResultStore
from trendflow_tests.service.deployment import (
    accepted,
    assert_refused,
    begun_run,
    body,
    client,
    make_parts,
    served,
    url,
    with_artifact,
)
from trendflow_tests.state.runs import COMPONENTS, SCHEMAS, finished
from trendflow_tests.storage.runs import first_manifest, store_component
from trendflow_tests.submission.desks import USER, Deployment, draft, submission_id


def test_status_documents_follow_the_run_and_carry_a_tag(api: httpx.Client, behind: Deployment) -> None:
    message = accepted(api, behind)
    waiting = api.get(url(message))
    assert validate_document(SCHEMAS, "run_status_v1", waiting.json()) == []
    assert waiting.json()["submitted_at"] == behind.clock.utc()

    manager = begun_run(behind, message)
    running = api.get(url(message, "/status"))
    assert validate_document(SCHEMAS, "run_status_v1", running.json()) == []
    assert (running.json()["status"], running.json()["progress"]["overall"]) == ("running", 0.0)
    assert running.headers["ETag"] != waiting.headers["ETag"]

    again = api.get(url(message, "/status"), headers={"If-None-Match": running.headers["ETag"]})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", running.headers["ETag"])

    finished(manager, "segmenter")
    behind.clock.seconds = 60
    manager.checkpoint_if_due()
    later = api.get(url(message, "/status"), headers={"If-None-Match": running.headers["ETag"]})
    assert later.status_code == 200
    assert later.json()["progress"]["overall"] == pytest.approx(1 / len(COMPONENTS))


def test_a_run_whose_log_is_gone_is_told_by_its_manifest(api: httpx.Client, behind: Deployment) -> None:
    message = accepted(api, behind)
    with_artifact(behind, message)
    begun_run(behind, message).fail(TrendFlowError("timeout", "The run took too long."))
    moment = behind.clock.utc()
    ResultStore(behind.store).update_manifest(message.run_path, lambda found: update_run(found, finished_at=moment))
    behind.store.delete_prefix(f"state/{message.run_path}")
    found = api.get(url(message)).json()
    assert validate_document(SCHEMAS, "run_status_v1", found) == []
    assert (found["status"], found["progress"]["overall"], found["submitted_at"]) == ("error", 1.0, moment)
    assert (found["error_code"], found["error"]) == ("out_of_memory", "No memory was left.")
    assert found["progress"]["components"]["core_clip"]["status"] == "error"


def test_a_run_of_the_command_line_answers_a_submission_and_is_found(api: httpx.Client, behind: Deployment) -> None:
    message = draft("elsewhere", 0, 1)  # never submitted
    behind.succeed(message)
    answer = api.post("/api/v1/process", json=body())
    assert (answer.status_code, answer.json()["run_id"]) == (200, message.identity.run_id)
    assert api.get(answer.json()["status_url"]).status_code == 200
    assert api.post("/api/v1/process", json=body()).status_code == 200
    behind.inbox.remove_before("20990101")
    assert_refused(api.get(answer.json()["status_url"]), 404, "dependency_missing")


def test_places_in_the_queue(api: httpx.Client, behind: Deployment) -> None:
    messages = [accepted(api, behind, video=number) for number in (1, 2)]
    behind.level1()[0].step()
    places = sorted(api.get(url(message)).json()["queue_position"] for message in messages)
    assert places == [1, 2]
    begun_run(behind, messages[0])  # of which level 1 has not heard yet
    assert api.get(url(messages[0])).json()["queue_position"] is None


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        *(("GET", rest) for rest in ("", "/status", "/events", "/manifest", "/artifacts/core_clip/core_clip.npz")),
        ("GET", "/report"),
        ("POST", "/cancel"),
    ],
)
def test_a_run_of_somebody_else_is_not_there(address: str, behind: Deployment, method: str, rest: str) -> None:
    with client(address, "premium-token") as owner, client(address, "free-token") as other, client(address) as admin:
        message = accepted(owner, behind)
        manager = begun_run(behind, message)
        with_artifact(behind, message)
        if method == "GET":  # streams end with the run; what has ended is not cancelled
            manager.fail(TrendFlowError("timeout", "The run took too long."))
        found = assert_refused(other.request(method, url(message, rest)), 404, "dependency_missing")
        nobody = assert_refused(other.request(method, f"/api/v1/runs/nobody{rest}"), 404, "dependency_missing")
        assert {**found, "run_id": ""} == {**nobody, "run_id": ""}
        assert "cancel_requested" not in [event.type for event in behind.states.events(message.run_path)]
        for caller in (owner, admin):
            assert caller.request(method, url(message, rest)).is_success


def test_the_id_of_a_run_of_somebody_else_is_taken(address: str) -> None:
    with client(address, "premium-token") as owner, client(address, "free-token") as other:
        assert owner.post("/api/v1/process", json=body(run_id="mine")).status_code == 202
        taken = other.post("/api/v1/process", json=body(video=2, run_id="mine"))
        assert_refused(taken, 409, "input_constraint_violated")
        # To be told that it exists is not to be given it.
        assert_refused(other.get("/api/v1/runs/mine"), 404, "dependency_missing")


def test_a_run_is_seen_by_whom_it_answered(address: str, behind: Deployment) -> None:
    with client(address, "premium-token") as owner, client(address, "free-token") as other:
        message = accepted(owner, behind)
        behind.succeed(message)
        assert_refused(other.get(url(message)), 404, "dependency_missing")
        answer = other.post("/api/v1/process", json=body())
        assert (answer.status_code, answer.json()["run_id"]) == (200, message.identity.run_id)
        assert other.get(answer.json()["status_url"]).status_code == 200
        assert owner.get(url(message)).status_code == 200
        behind.inbox.remove_before("20990101")
        assert not behind.inbox.may_see("user-free", message.run_path)
        assert list(behind.store.list("submissions")) == []


def test_a_deleted_video_leaves_no_trace_of_whom_it_answered(address: str, behind: Deployment) -> None:
    with client(address, "premium-token") as owner, client(address, "free-token") as other:
        message = accepted(owner, behind)
        behind.succeed(message)
        assert other.post("/api/v1/process", json=body()).status_code == 200
    behind.inbox.forget(message.identity.platform_id, message.identity.video_id)
    assert [info.key for info in behind.store.list("submissions") if message.identity.video_id in info.key] == []
    assert not behind.inbox.may_see("user-free", message.run_path)


def test_runs_of_the_command_line_are_seen_by_administrators(address: str, behind: Deployment) -> None:
    message = draft("listed", 0, 1)
    behind.desk.submit(submission_id("listed"), USER, [message])
    unlisted = draft("elsewhere", 0, 2)  # never submitted, and known to level 1 only
    behind.level1()[1].run_status(unlisted.run_path, "pending")
    with client(address, "premium-token") as other, client(address) as admin:
        for run in (message, unlisted):
            assert_refused(other.get(url(run, "/events")), 404, "dependency_missing")
        assert admin.get(url(message)).status_code == 200
        assert admin.get(url(unlisted, "/manifest")).json()["message"] == "The run has no manifest yet."


@pytest.mark.parametrize(
    "rest", ["", "/status", "/events", "/manifest", "/artifacts/core_clip/core_clip.npz", "/report"]
)
def test_a_video_that_is_to_be_deleted_is_not_there_any_more(behind: Deployment, rest: str) -> None:
    """From the request on, however long the removal takes."""
    deleted: set[tuple[str, str]] = set()
    parts = make_parts(behind, is_deleted=lambda *video: video in deleted)
    with served(parts) as address, client(address) as api:
        message, other = accepted(api, behind, video=1), accepted(api, behind, video=2)
        for run in (message, other):
            with_artifact(behind, run)
            begun_run(behind, run).fail(TrendFlowError("timeout", "The run took too long."))
        deleted.add((message.identity.platform_id, message.identity.video_id))
        assert_refused(api.get(url(message, rest)), 404, "dependency_missing")
        assert api.get(url(other, rest)).status_code == 200


@pytest.mark.parametrize("rest", ["", "/status", "/events", "/manifest", "/artifacts/a.npz", "/report"])
def test_runs_that_do_not_exist(api: httpx.Client, rest: str) -> None:
    found = assert_refused(api.get(f"/api/v1/runs/nobody{rest}"), 404, "dependency_missing")
    assert found["run_id"] == "nobody"
    assert_refused(api.get(f"/api/v1/runs/no..id{rest}"), 404, "dependency_missing")
    assert_refused(api.post("/api/v1/runs/nobody/cancel"), 404, "dependency_missing")


def test_a_cancellation_is_heard_before_and_after_the_log_begins(api: httpx.Client, behind: Deployment) -> None:
    early = accepted(api, behind, video=1)
    assert [api.post(url(early, "/cancel")).status_code for _ in range(2)] == [202, 202]
    view = behind.states.read_run(early.run_path)
    assert view is not None
    assert view.run["cancel_requested_at"] is not None

    late = accepted(api, behind, video=2)
    manager = begun_run(behind, late)
    assert api.post(url(late, "/cancel")).json()["status"] == "running"
    api.post(url(late, "/cancel"))
    asked = [event for event in behind.states.events(late.run_path) if event.type == "cancel_requested"]
    assert len(asked) == 1
    manager.follow()
    manager.cancel()
    assert api.post(url(late, "/cancel")).json()["status"] == "cancelled"


def test_the_report_groups_components(api: httpx.Client, behind: Deployment) -> None:
    message = accepted(api, behind)
    with_artifact(behind, message)
    found = api.get(url(message, "/report")).json()
    assert found["run_id"] == message.identity.run_id
    row = found["modalities"]["visual"]["core"]["core_clip"]
    assert (row["status"], row["metrics"]) == ("error", {})


def test_the_report_tells_features_and_refuses_damaged_ones(api: httpx.Client, behind: Deployment) -> None:
    message = accepted(api, behind)
    results = ResultStore(behind.store)
    results.create_manifest(first_manifest(message.identity))
    features = {
        "feature_names": np.array(["cuts_per_min", "shot_mean_s"]),
        "feature_values": np.array([12.5, np.nan], np.float32),
    }
    store_component(results, message.identity, "core_clip", features)
    found = api.get(url(message, "/report")).json()
    row = found["modalities"]["visual"]["core"]["core_clip"]
    assert (row["status"], row["metrics"]) == ("ok", {"cuts_per_min": 12.5, "shot_mean_s": None})

    key = f"result_store/{message.run_path}/core_clip/core_clip.npz"
    data = bytearray(behind.store.get(key))
    data[len(data) // 2] ^= 1
    behind.store.put(key, bytes(data))
    assert_refused(api.get(url(message, "/report")), 500, "artifact_validation_failed")
    behind.store.delete(key)
    assert api.get(url(message, "/report")).json()["modalities"]["visual"]["core"]["core_clip"]["metrics"] == {}
