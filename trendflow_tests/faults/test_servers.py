"""Servers are killed while a worker executes a run, and come back: the run ends as if nothing had been."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster import DagsterRunStatus

from trendflow.fleet import postgresql, valkey
from trendflow.orchestration.runs import RunContext
from trendflow_tests.faults.house import Client
from trendflow_tests.faults.runs import assert_whole, rows
from trendflow_tests.orchestration.queue.stage import wait_for
from trendflow_tests.s3_proxy import Fault, Request

pytestmark = pytest.mark.xdist_group("faults")

WAY = ["pending", "queued", "running", "success"]


def way_of(run: RunContext) -> list[str | None]:
    """The states that the run went through."""
    events = run.deployment.states.events(run.run_path)
    return [event.to for event in events if event.type == "run_status"]


def kill_at(client: Client, server: str, part: str) -> list[int]:
    """Kill a server when the worker is about to store something. Later holds how much the worker had said by then."""
    killed: list[int] = []

    def decide(request: Request) -> Fault | None:
        if not killed and request.method == "PUT" and part in request.path:
            killed.append(len(client.house.words()))
            client.house.servers.kill(server)
        return None

    client.house.proxy.decide = decide
    return killed


def test_a_database_that_is_killed_in_the_middle_of_a_run(client: Client, clip: Path) -> None:
    run = client.submit(clip)
    killed = kill_at(client, postgresql.NAME, "/tempo_extractor.npz")
    launched = client.launch(run)
    wait_for(lambda: killed, "the death of the database")
    client.house.says("the database does not answer", killed[0])
    before = rows(run)
    client.house.servers.revive()
    assert client.ends(launched) == DagsterRunStatus.SUCCESS
    assert_whole(run)
    assert way_of(run) == [*WAY[:-1], "recovering", *WAY[-2:]]
    after = rows(run)
    assert {name: after[name] for name in before} == before
    # What was let go of says nothing any more: neither to the state, nor in the words of the worker about others.
    said, later = len(client.house.words()), client.submit(clip)
    assert client.ends(client.launch(later)) == DagsterRunStatus.SUCCESS
    assert run.identity.video_id not in client.house.words()[said:]


def test_a_broker_that_is_killed_in_the_middle_of_a_run(client: Client, clip: Path) -> None:
    run, later = client.submit(clip), client.submit(clip)
    killed = kill_at(client, valkey.NAME, "/tempo_extractor.npz")
    first, second = client.launch(run), client.launch(later)
    wait_for(lambda: killed, "the death of the broker")
    wait_for(lambda: client.status(first) == DagsterRunStatus.SUCCESS, "the end of the run")
    client.house.servers.revive()
    assert [client.ends(first), client.ends(second)] == [DagsterRunStatus.SUCCESS] * 2
    for each in (run, later):
        assert_whole(each)
        assert way_of(each) == WAY


def test_a_worker_begins_no_run_while_the_store_is_away(client: Client, clip: Path) -> None:
    run = client.submit(clip)
    said = len(client.house.words())
    client.house.proxy.decide = lambda request: "reset"
    launched = client.launch(run)
    client.house.says(f"run {launched} waits: storage_unavailable", said)
    assert client.status(launched) == DagsterRunStatus.STARTING
    client.house.proxy.decide = lambda request: None
    assert client.ends(launched) == DagsterRunStatus.SUCCESS
    assert_whole(run)
    assert way_of(run) == WAY
