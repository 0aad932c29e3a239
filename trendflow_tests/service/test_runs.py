"""What the service tells of a run, over real connections."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.to_thread
import httpx
import numpy as np
import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.manifest import new_manifest, update_run
from trendflow.contracts.schema import validate_document
from trendflow.service.byte_ranges import ByteRange, Unsatisfiable, matches, parse_range
from trendflow.service.event_stream import Streams, follow
from trendflow.service.parts import ServiceLimits
from trendflow.storage.result_store import ResultStore
from trendflow.submission.message import Message
from trendflow_tests.service.deployment import begun_run, body, client, make_parts, served
from trendflow_tests.service.test_submission import assert_refused
from trendflow_tests.state.runs import COMPONENTS, SCHEMAS, finished
from trendflow_tests.storage.runs import first_manifest, store_component
from trendflow_tests.submission.desks import USER, Deployment, draft, submission_id

KNOWN = bytes(np.random.default_rng(0).integers(0, 256, 3_000_000, np.uint8))  # more than one chunk

THREADS = 40  # in which the server answers what is not written for its event loop


def accepted(api: httpx.Client, behind: Deployment, **changed: Any) -> Message:
    run_id = api.post("/api/v1/process", json=body(**changed)).json()["run_id"]
    message = behind.inbox.message_of(run_id)
    assert message is not None
    return message


def url(message: Message, rest: str = "") -> str:
    return f"/api/v1/runs/{message.identity.run_id}{rest}"


def with_artifact(behind: Deployment, message: Message, **changed: Any) -> dict[str, Any]:
    """A run whose manifest names one artifact, of the bytes `KNOWN`; returns its row."""
    row = {
        "path": "core_clip/core_clip.npz",
        "type": "npz",
        "size": len(KNOWN),
        "sha256": "5" * 64,
        "content_digest": "6" * 64,
        "schema_version": "core_clip_npz_v3",
        "retention_class": "derived",
        **changed,
    }
    component = {
        "empty_reason": None,
        "notes": None,
        "error": "No memory was left.",
        "error_code": "out_of_memory",
        "started_at": behind.clock.utc(),
        "finished_at": behind.clock.utc(),
        "name": "core_clip",
        "kind": "core",
        "status": "error",
        "artifacts": [row],
        "duration_ms": 1.0,
        "cache_hit": False,
        "warnings": [],
        "retry_count": 0,
    }
    results = ResultStore(behind.store)
    results.create_manifest(new_manifest(message.identity, behind.clock.utc(), "starter", {"type": "youtube_url"}))
    results.update_manifest(message.run_path, lambda found: {**found, "components": [component]})
    behind.store.put(f"result_store/{message.run_path}/core_clip/core_clip.npz", KNOWN)
    return row


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


def parsed(stream: str) -> list[dict[str, str]]:
    """Server-sent events as the HTML standard reads them; comments are left out."""
    events = []
    for block in stream.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            events.append(dict(line.split(": ", 1) for line in lines))
    return events


def test_events_are_the_log_and_resume_by_number(api: httpx.Client, behind: Deployment) -> None:
    message = accepted(api, behind)
    manager = begun_run(behind, message)
    finished(manager, "segmenter")
    manager.fail(TrendFlowError("timeout", "The run took too long."))
    recorded = behind.states.events(message.run_path)

    answer = api.get(url(message, "/events"))
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    events = parsed(answer.text)
    assert [int(event["id"]) for event in events] == [event.seq for event in recorded]
    assert [json.loads(event["data"])["type"] for event in events] == [event.type for event in recorded]
    names = {json.loads(event["data"])["type"]: event["event"] for event in events}
    assert names["run_status"] == "status"
    assert names["processor_status"] == "stage"
    assert names["component_status"] == "component"
    assert names["manager_started"] == "log"

    middle = recorded[len(recorded) // 2].seq
    rest = parsed(api.get(url(message, "/events"), headers={"Last-Event-ID": str(middle)}).text)
    assert [int(event["id"]) for event in rest] == [event.seq for event in recorded if event.seq > middle]
    over = api.get(url(message, "/events"), headers={"Last-Event-ID": str(recorded[-1].seq)})
    assert over.status_code == 204
    assert_refused(api.get(url(message, "/events"), headers={"Last-Event-ID": "x1"}), 400, "input_constraint_violated")


def test_events_arrive_while_the_run_goes_on(api: httpx.Client, behind: Deployment) -> None:
    message = accepted(api, behind)
    manager = begun_run(behind, message)
    known = behind.states.events(message.run_path)[-1].seq
    with api.stream("GET", url(message, "/events"), headers={"Last-Event-ID": str(known)}) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith(":")  # the stream is open and has nothing to tell
        finished(manager, "segmenter")
        manager.fail(TrendFlowError("timeout", "The run took too long."))
        ids = [int(line.removeprefix("id: ")) for line in lines if line.startswith("id: ")]
    assert ids == [event.seq for event in behind.states.events(message.run_path, known)]


def test_ten_callers_may_listen_to_a_run(behind: Deployment) -> None:
    with served(make_parts(behind)) as address, client(address) as api:
        message = accepted(api, behind)
        manager = begun_run(behind, message)
        streams = [api.send(api.build_request("GET", url(message, "/events")), stream=True) for _ in range(10)]
        assert {stream.status_code for stream in streams} == {200}
        refused = api.get(url(message, "/events"))
        assert_refused(refused, 429, "rate_limited")
        assert int(refused.headers["Retry-After"]) > 0
        other = accepted(api, behind, video=2)
        with api.stream("GET", url(other, "/events")) as stream:
            assert stream.status_code == 200  # each run has its own ten
        manager.fail(TrendFlowError("timeout", "The run took too long."))
        for stream in streams:
            stream.read()
        assert api.get(url(message, "/events")).status_code == 200


def test_streams_have_a_limit_for_a_user_and_one_for_all(behind: Deployment) -> None:
    limits = ServiceLimits(poll_sec=0.01, streams_per_run=1, streams_per_user=2, streams=3)
    with (
        served(make_parts(behind, limits=limits)) as address,
        client(address) as admin,
        client(address, "free-token") as free,
    ):
        runs = [accepted(admin, behind, video=video) for video in range(3)]
        own = [accepted(free, behind, video=video) for video in (3, 4)]
        managers = [begun_run(behind, message) for message in (*runs, *own)]

        def listen(caller: httpx.Client, message: Message) -> httpx.Response:
            return caller.send(caller.build_request("GET", url(message, "/events")), stream=True)

        streams = [listen(admin, message) for message in runs[:2]]
        assert "as this user" in assert_refused(admin.get(url(runs[2], "/events")), 429, "rate_limited")["message"]
        streams.append(listen(free, own[0]))
        assert "here" in assert_refused(free.get(url(own[1], "/events")), 429, "rate_limited")["message"]
        assert {stream.status_code for stream in streams} == {200}
        for manager in managers:
            manager.fail(TrendFlowError("timeout", "The run took too long."))
        for stream in streams:
            stream.read()
        assert free.get(url(own[1], "/events")).status_code == 200


def test_liveness_does_not_wait_for_threads(behind: Deployment) -> None:
    """As many requests as there are threads wait for a check that does not come back."""
    release, waiting = threading.Event(), threading.Semaphore(0)

    def stuck() -> None:
        waiting.release()
        release.wait(600)

    with (
        served(make_parts(behind), metric_sources=[stuck]) as address,
        client(address) as api,
        ThreadPoolExecutor(THREADS) as callers,
    ):
        answers = [callers.submit(api.get, "/metrics") for _ in range(THREADS)]
        try:
            for _ in range(THREADS):
                assert waiting.acquire(timeout=600)
            assert api.get("/health/live").json() == {"status": "ok"}
        finally:
            release.set()
        assert {answer.result().status_code for answer in answers} == {200}


def test_streams_leave_the_threads_of_the_other_paths_alone(behind: Deployment) -> None:
    """Those are all taken, and a stream goes on: it waits in threads of its own, so it takes none of them either."""
    message = draft("hook", 0, 1)
    behind.desk.submit(submission_id("hook"), USER, [message])
    begun_run(behind, message).fail(TrendFlowError("timeout", "The run took too long."))

    async def listened() -> bytes:
        shared = anyio.to_thread.current_default_thread_limiter()
        for place in range(int(shared.total_tokens)):
            shared.acquire_on_behalf_of_nowait(place)
        limits, limiter = ServiceLimits(), Streams(ServiceLimits()).limiter
        with anyio.fail_after(60):
            return b"".join([part async for part in follow(behind.states, message.run_path, 0, limits, limiter)])

    ids = [int(event["id"]) for event in parsed(anyio.run(listened).decode())]
    assert ids == [event.seq for event in behind.states.events(message.run_path)]


def test_a_caller_who_goes_away_makes_room(api: httpx.Client, behind: Deployment) -> None:
    message = accepted(api, behind)
    begun_run(behind, message)
    request = api.build_request("GET", url(message, "/events"))
    streams = [api.send(request, stream=True) for _ in range(10)]
    streams.pop().close()
    # The server hears of it when it does; until then there is no room.
    while (late := api.send(request, stream=True)).status_code == 429:
        late.close()
    assert late.status_code == 200
    for stream in (*streams, late):
        stream.close()


@pytest.fixture(scope="module")
def stored() -> Iterator[Callable[..., httpx.Response]]:
    """Asks for an artifact of the bytes `KNOWN`, of a run that no test changes."""
    behind = Deployment()
    with served(make_parts(behind)) as address, client(address) as api:
        message = accepted(api, behind)
        with_artifact(behind, message)
        path = url(message, "/artifacts/core_clip/core_clip.npz")
        yield lambda method, **headers: api.request(method, path, headers=headers)


@pytest.mark.parametrize(
    ("header", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=1048570-2097160", 1_048_570, 2_097_161),
        ("bytes=2999990-", 2_999_990, 3_000_000),
        ("bytes=-7", 2_999_993, 3_000_000),
        ("bytes=2999999-99999999", 2_999_999, 3_000_000),
        ("bytes=-99999999", 0, 3_000_000),
    ],
)
@pytest.mark.xdist_group("service_artifact")
def test_ranges_of_an_artifact(stored: Callable[..., httpx.Response], header: str, first: int, end: int) -> None:
    answer = stored("GET", Range=header)
    assert answer.status_code == 206
    assert answer.content == KNOWN[first:end]
    assert answer.headers["Content-Range"] == f"bytes {first}-{end - 1}/3000000"
    assert answer.headers["Content-Length"] == str(end - first)


@pytest.mark.parametrize("headers", [{}, *({"Range": text} for text in ("bytes=0-1,4-5", "bytes=5-4", "lines=1-2"))])
@pytest.mark.xdist_group("service_artifact")
def test_whole_artifacts(stored: Callable[..., httpx.Response], headers: dict[str, str]) -> None:
    answer = stored("GET", **headers)
    assert (answer.status_code, answer.content) == (200, KNOWN)
    assert answer.headers["ETag"] == f'"{"5" * 64}"'
    head = stored("HEAD")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", "3000000")


def test_conditions_on_an_artifact(api: httpx.Client, behind: Deployment) -> None:
    message = accepted(api, behind)
    tag = f'"{with_artifact(behind, message)["sha256"]}"'
    path = url(message, "/artifacts/core_clip/core_clip.npz")
    assert api.get(path, headers={"If-None-Match": f'"other", W/{tag}'}).status_code == 304
    assert api.get(path, headers={"If-Range": tag, "Range": "bytes=0-3"}).content == KNOWN[:4]
    assert api.get(path, headers={"If-Range": '"other"', "Range": "bytes=0-3"}).content == KNOWN
    behind_the_end = api.get(path, headers={"Range": "bytes=3000000-"})
    assert_refused(behind_the_end, 416, "input_constraint_violated")
    assert behind_the_end.headers["Content-Range"] == "bytes */3000000"


@pytest.mark.parametrize(
    "path",
    [
        "manifest.json",
        "core_clip",
        "core_clip/",
        "core_clip/core_clip.npz/",
        "core_clip//core_clip.npz",
        "../../../state/_global/state_level1_global.json",
        "..%2f..%2fother/run/core_clip/core_clip.npz",
        "%2e%2e/run/core_clip/core_clip.npz",
        "core_clip/..%2fcore_clip/core_clip.npz",
        "core_clip%00.npz",
        "/etc/passwd",
    ],
)
def test_paths_that_the_manifest_does_not_name(api: httpx.Client, behind: Deployment, path: str) -> None:
    message = accepted(api, behind)
    with_artifact(behind, message)
    behind.store.put(f"result_store/{message.run_path}/core_clip/secret.npz", b"secret")
    assert_refused(api.get(url(message, f"/artifacts/{path}")), 404, "dependency_missing")
    assert_refused(api.get(url(message, "/artifacts/core_clip/secret.npz")), 404, "dependency_missing")


def test_raw_text_and_removed_artifacts_are_not_there(api: httpx.Client, behind: Deployment) -> None:
    private, removed = accepted(api, behind, video=1), accepted(api, behind, video=2)
    with_artifact(behind, private, retention_class="raw_text")
    with_artifact(behind, removed)
    behind.store.delete(f"result_store/{removed.run_path}/core_clip/core_clip.npz")
    for message in (private, removed):
        answer = api.get(url(message, "/artifacts/core_clip/core_clip.npz"))
        assert_refused(answer, 404, "dependency_missing")


def test_an_artifact_of_another_size_is_not_handed_out(api: httpx.Client, behind: Deployment) -> None:
    message = accepted(api, behind)
    with_artifact(behind, message, size=5)
    answer = api.get(url(message, "/artifacts/core_clip/core_clip.npz"))
    assert_refused(answer, 500, "artifact_validation_failed")


def test_the_manifest_as_it_is_stored(api: httpx.Client, behind: Deployment) -> None:
    message = accepted(api, behind)
    assert_refused(api.get(url(message, "/manifest")), 404, "dependency_missing")
    with_artifact(behind, message)
    stored = behind.store.get(f"result_store/{message.run_path}/manifest.json")
    answer = api.get(url(message, "/manifest"))
    assert answer.content == stored
    assert api.get(url(message, "/manifest"), headers={"Range": "bytes=5-14"}).content == stored[5:15]
    tag = answer.headers["ETag"]
    assert api.get(url(message, "/manifest"), headers={"If-None-Match": tag}).status_code == 304
    moment = behind.clock.utc()
    ResultStore(behind.store).update_manifest(message.run_path, lambda found: update_run(found, finished_at=moment))
    assert api.get(url(message, "/manifest"), headers={"If-None-Match": tag}).status_code == 200


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


def test_range_headers() -> None:
    assert parse_range("bytes=0-", 0x10) == ByteRange(0, 16)
    assert parse_range("bytes = 3 - 4", 10) == ByteRange(3, 2)
    assert parse_range("bytes=-", 10) is None
    for header in ("bytes=-0", "bytes=10-", "bytes=0-"):
        with pytest.raises(Unsatisfiable):
            parse_range(header, 10 if header != "bytes=0-" else 0)


def test_entity_tags() -> None:
    assert matches("*", '"a"')
    assert matches('W/"b" , "a"', '"a"')
    assert not matches('"ab"', '"a"')
    assert not matches(None, '"a"')
