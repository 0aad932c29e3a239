"""POST /process and what stands before every path, over real connections."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import httpx
import pytest

from trendflow.contracts.video_document import VideoDocument
from trendflow.service.rate_limits import RateLimits
from trendflow.service.users import User
from trendflow.submission.admission import SubmissionLimits
from trendflow.submission.message import Message
from trendflow_tests.service.deployment import assert_refused, body, client, make_parts, served
from trendflow_tests.state.runs import FixedClock
from trendflow_tests.submission.desks import Deployment, video_id

PATH = "/api/v1/process"


def said_by_the_server(caplog: pytest.LogCaptureFixture) -> str:
    """The log without the lines of the client, which runs in the same process."""
    clients = ("httpx", "httpcore")
    return "\n".join(
        f"{record.getMessage()} {record.exc_text or ''}"
        for record in caplog.records
        if not record.name.startswith(clients)
    )


def test_a_new_video_is_accepted_and_can_be_followed(api: httpx.Client, behind: Deployment) -> None:
    answer = api.post(PATH, json=body())
    assert answer.status_code == 202
    run_id = answer.json()["run_id"]
    assert answer.json() == {
        "run_id": run_id,
        "status": "pending",
        "status_url": f"/api/v1/runs/{run_id}/status",
        "events_url": f"/api/v1/runs/{run_id}/events",
        "cached": False,
    }
    message = behind.inbox.message_of(run_id)
    assert message is not None
    assert (message.identity.video_id, message.user_id) == (video_id(1), "user-admin")
    assert api.get(answer.json()["status_url"]).json()["status"] == "pending"


def test_a_fresh_success_is_answered_by_its_run(api: httpx.Client, behind: Deployment) -> None:
    first = api.post(PATH, json=body()).json()["run_id"]
    message = behind.inbox.message_of(first)
    assert message is not None
    behind.succeed(message)
    answer = api.post(PATH, json=body())
    assert answer.status_code == 200
    assert (answer.json()["run_id"], answer.json()["cached"], answer.json()["status"]) == (first, True, "success")


def test_a_run_id_serves_once(api: httpx.Client) -> None:
    assert api.post(PATH, json=body(run_id="mine")).status_code == 202
    found = assert_refused(api.post(PATH, json=body(video=2, run_id="mine")), 409, "input_constraint_violated")
    assert found["run_id"] == "mine"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"video_url": "file:///etc/passwd"}, "input_constraint_violated"),
        ({"video_url": "/etc/passwd"}, "input_constraint_violated"),
        ({"local_path": "/etc/passwd"}, "input_constraint_violated"),
        ({"analysis_fps": "5"}, "input_constraint_violated"),
        ({"profile": "unknown"}, "config_invalid"),
        ({"config_hash": "b" * 64}, "config_invalid"),
        ({"pipeline_version": "p2"}, "config_invalid"),
        ({"callback_url": "http://example.org/hook"}, "input_constraint_violated"),
        ({"callback_url": "https://127.0.0.1/hook"}, "input_constraint_violated"),
        ({"callback_url": "https://a..b.example/"}, "input_constraint_violated"),
        ({"callback_url": "https://bü..cher.example/"}, "input_constraint_violated"),
        ({"callback_url": "https://[::ffff:10.0.0.1]/hook"}, "input_constraint_violated"),
        ({"document": {"title": "Canary"}}, "config_invalid"),
        ({"snapshot": {"observed_at": "2026-01-01T00:00:00Z", "views": 1}}, "config_invalid"),
    ],
)
def test_a_request_outside_the_contract(api: httpx.Client, changed: dict, code: str) -> None:
    assert_refused(api.post(PATH, json=body(**changed)), 400, code)


def test_an_upload_is_taken_once_its_file_is_there(behind: Deployment, tmp_path: Path) -> None:
    def upload(name: str) -> dict:
        return body(video_id="my-holiday", platform_id="upload", video_url=None, upload_id=name)

    (tmp_path / "u-1").write_bytes(b"a video")
    (tmp_path / "u-2").mkdir()
    with served(make_parts(behind)) as address, client(address) as api:
        found = assert_refused(api.post(PATH, json=upload("u-1")), 400, "config_invalid")
        assert found["detail"] == {"field": "upload_id"}
    with served(make_parts(behind, uploads=tmp_path)) as address, client(address) as api:
        for missing in ("u-2", "u-3"):
            found = assert_refused(api.post(PATH, json=upload(missing)), 400, "source_unavailable")
            assert str(tmp_path) not in json.dumps(found)
        assert_refused(api.post(PATH, json=upload("../u-1")), 400, "input_constraint_violated")
        answer = api.post(PATH, json=upload("u-1"))
    assert answer.status_code == 202, answer.text
    message = behind.inbox.message_of(answer.json()["run_id"])
    assert message is not None
    assert (message.source.type, message.source.locator) == ("upload", "u-1")


def test_what_is_no_json_is_refused(api: httpx.Client) -> None:
    assert_refused(
        api.post(PATH, content=b"\xff{", headers={"Content-Type": "application/json"}), 400, "input_constraint_violated"
    )


def test_a_deleted_video_does_not_come_back(behind: Deployment) -> None:
    behind.deleted = {("youtube", video_id(1))}
    with served(make_parts(behind)) as address, client(address) as api:
        assert_refused(api.post(PATH, json=body()), 400, "input_constraint_violated")


@pytest.mark.parametrize("token", [None, "wrong", "free-token"])
def test_nothing_but_liveness_without_a_token(address: str, token: str | None) -> None:
    with client(address, None) as nobody:
        headers = {} if token is None else {"Authorization": f"Basic {token}"}
        for path in ("/health", "/metrics", "/openapi.json", "/api/v1/runs/run-1", "/no/such/path"):
            found = nobody.get(path, headers=headers)
            assert_refused(found, 401, "input_constraint_violated")
            assert found.headers["WWW-Authenticate"] == "Bearer"
        assert nobody.get("/health/live").json() == {"status": "ok"}


def test_a_wrong_token_of_the_right_form(address: str) -> None:
    with client(address, "free-tokem") as nobody:
        assert_refused(nobody.post(PATH, json=body()), 401, "input_constraint_violated")


def test_long_bodies_are_refused_whether_or_not_they_say_so(api: httpx.Client) -> None:
    long = b'{"a": "' + b"x" * (1 << 20) + b'"}'
    assert_refused(api.post(PATH, content=long), 413, "input_constraint_violated")
    pieces = (long[start : start + 65536] for start in range(0, len(long), 65536))
    assert_refused(api.post(PATH, content=pieces), 413, "input_constraint_violated")  # chunked: without a length


def test_a_free_user_begins_five_runs_an_hour(address: str) -> None:
    with client(address, "free-token") as free, client(address, "premium-token") as premium:
        for video in range(5):
            assert free.post(PATH, json=body(video)).status_code == 202
        refused = free.post(PATH, json=body(6))
        found = assert_refused(refused, 429, "rate_limited")
        assert refused.headers["Retry-After"] == str(found["detail"]["retry_after_sec"]) == "3600"
        assert premium.post(PATH, json=body(7)).status_code == 202  # others are not held back


def test_answers_that_begin_no_run_do_not_count(address: str, behind: Deployment) -> None:
    with client(address, "free-token") as free:
        run_id = free.post(PATH, json=body()).json()["run_id"]
        message = behind.inbox.message_of(run_id)
        assert message is not None
        behind.succeed(message)
        assert {free.post(PATH, json=body()).status_code for _ in range(7)} == {200}
        assert free.post(PATH, json=body(2)).status_code == 202


def test_a_window_of_an_hour_slides() -> None:
    clock = FixedClock()
    limits, user = RateLimits(clock), User("u", "free")
    for second in (0, 100, 200, 300, 400):
        clock.seconds = second
        limits.take(user)
    clock.seconds = 3599.5
    with pytest.raises(Exception, match="5 runs an hour"):
        limits.take(user)
    clock.seconds = 3600
    limits.take(user)
    with pytest.raises(Exception, match="5 runs an hour"):
        limits.take(user)


def test_a_long_queue_and_a_full_disk_send_callers_away() -> None:
    behind = Deployment(limits=SubmissionLimits(refuse_above=1))
    with served(make_parts(behind)) as address, client(address) as api:
        assert api.post(PATH, json=body(1)).status_code == 202
        assert api.post(PATH, json=body(2)).status_code == 202
        refused = api.post(PATH, json=body(3))
        assert_refused(refused, 503, "rate_limited")
        assert refused.headers["Retry-After"] == "30"
    behind = Deployment(free_gb=1)
    with served(make_parts(behind)) as address, client(address) as api:
        assert_refused(api.post(PATH, json=body(3)), 503, "storage_unavailable")


def test_the_framework_refuses_in_the_same_form(api: httpx.Client) -> None:
    assert_refused(api.get("/no/such/path"), 404, "dependency_missing")
    wrong = api.get(PATH)
    assert_refused(wrong, 405, "input_constraint_violated")
    assert wrong.headers["Allow"] == "POST"
    assert_refused(api.post("/api/v1/admin/retention/cleanup", json={"dry_run": 1}), 400, "input_constraint_violated")


class Hands:
    """Remembers what it was given and what it was to take back."""

    def __init__(self) -> None:
        self.given: list[tuple[str, VideoDocument]] = []
        self.withdrawn: list[tuple[str, VideoDocument]] = []

    def __call__(self, message: Message, document: VideoDocument) -> None:
        self.given.append((message.run_path, document))

    def withdraw(self, message: Message, document: VideoDocument) -> None:
        self.withdrawn.append((message.run_path, document))


def test_text_is_handed_over_and_nowhere_else(caplog: pytest.LogCaptureFixture) -> None:
    behind, hands = Deployment(), Hands()
    parts = make_parts(behind, hand_over=hands)
    caplog.set_level(logging.DEBUG)
    with served(parts) as address, client(address) as api:
        wanted = body(document={"title": "Canary of a title", "tags": ["canary-tag"]})
        run_id = api.post(PATH, json=wanted).json()["run_id"]
        answers = [
            api.post(PATH, json={**wanted, "surprise": "Canary of a title"}),
            api.post(PATH, json={**wanted, "video_id": "Canary of a title"}),
            api.get(f"/api/v1/runs/{run_id}", params={"q": "Canary of a title"}),
            api.get("/api/v1/runs/Canary of a title"),
            api.get("/metrics"),
        ]
    (path, document), *_ = hands.given
    assert path.endswith(run_id)
    assert document == VideoDocument(title="Canary of a title", tags=("canary-tag",))
    assert hands.withdrawn == []
    stored = b"".join(behind.store.get(info.key) for info in behind.store.list())
    said = b"".join(answer.content for answer in answers)
    assert b"anary" not in stored + said
    log = said_by_the_server(caplog)
    assert "anary" not in log
    assert "POST /process 202" in log  # it was listened to


def test_text_that_no_run_needs_is_taken_back() -> None:
    behind, hands = Deployment(), Hands()
    with served(make_parts(behind, hand_over=hands)) as address, client(address) as api:
        text = {"document": {"title": "Canary of a title"}}
        first = api.post(PATH, json=body(run_id="mine", **text)).json()["run_id"]
        assert api.post(PATH, json=body(run_id="mine", **text)).status_code == 409
        assert hands.withdrawn == []  # the run that has the id may have this very text
        message = behind.inbox.message_of(first)
        assert message is not None
        behind.succeed(message)
        assert api.post(PATH, json=body(**text)).status_code == 200
    assert hands.withdrawn == [hands.given[-1]]
    assert len({path for path, _ in hands.given}) == 2


def test_a_bug_is_neither_told_nor_logged_in_full(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Hands):
        def __call__(self, message: Message, document: VideoDocument) -> None:
            raise KeyError("Canary of a title")

    with served(make_parts(Deployment(), hand_over=Broken())) as address, client(address) as api:
        answer = api.post(PATH, json=body(document={"title": "Canary of a title"}))
    assert_refused(answer, 500, "internal_error")
    log = said_by_the_server(caplog)
    assert "anary" not in answer.text + log
    assert "unexpected KeyError at __call__:" in log
