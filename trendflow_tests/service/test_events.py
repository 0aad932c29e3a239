"""Events of a run as a stream, and how many may listen."""

from __future__ import annotations

import json

import anyio
import anyio.to_thread
import httpx

from trendflow.contracts.errors import TrendFlowError
from trendflow.service.event_stream import Streams, follow
from trendflow.service.parts import ServiceLimits
from trendflow.submission.message import Message
from trendflow_tests.service.deployment import (
    accepted,
    assert_refused,
    begun_run,
    client,
    make_parts,
    served,
    url,
)
from trendflow_tests.state.runs import finished
from trendflow_tests.submission.desks import USER, Deployment, draft, submission_id


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
