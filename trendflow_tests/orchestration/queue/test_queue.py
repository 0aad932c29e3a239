"""Runs go through the broker and come to an end, whatever dies meanwhile."""

from __future__ import annotations

import pytest
from dagster import DagsterRunStatus

from trendflow.orchestration.queue.celery_app import RUN_TASK, make_app
from trendflow.orchestration.queue.names import ERROR_CODE_TAG, WORKER_TAG
from trendflow_tests.orchestration.queue.stage import Stage, wait_for

pytestmark = pytest.mark.xdist_group("queue")


def test_a_broker_that_is_restarted_loses_nothing(stage: Stage) -> None:
    waiting = stage.launch("waiting")  # no worker is there yet, for this is the first test
    stage.broker.kill()
    stage.broker.start()
    stage.worker("one")
    assert stage.ends(waiting) == DagsterRunStatus.SUCCESS
    stage.settled()
    stage.broker.kill()  # while the worker waits for messages
    stage.broker.start()
    running = stage.launch("running", wait=True)
    stage.begun("running")
    later = stage.launch("later")
    stage.broker.kill()  # while it works, and until the run has ended
    stage.go("running")
    wait_for(lambda: stage.status(running) == DagsterRunStatus.SUCCESS, "the end of the run")
    stage.broker.start()
    assert [stage.ends(running), stage.ends(later)] == [DagsterRunStatus.SUCCESS] * 2
    stage.settled()
    assert [note["name"] for note in stage.notes()] == ["waiting", "running", "later"]


def test_the_second_run_is_warm_and_a_repeated_message_does_nothing(stage: Stage) -> None:
    stage.worker("one")
    first, second = stage.launch("first"), stage.launch("second")
    assert [stage.ends(first), stage.ends(second)] == [DagsterRunStatus.SUCCESS] * 2
    cold, warm = stage.notes()
    assert (warm["pid"], warm["handle"]) == (cold["pid"], cold["handle"])
    make_app(stage.broker.url, 60).send_task(RUN_TASK, args=[first], queue="cpu.normal")
    assert stage.ends(stage.launch("third")) == DagsterRunStatus.SUCCESS
    stage.settled()
    assert [note["name"] for note in stage.notes()] == ["first", "second", "third"]


def test_a_busy_worker_leaves_messages_to_others_and_serves_high_first(stage: Stage) -> None:
    stage.worker("one")
    busy = stage.launch("busy", wait=True)
    stage.begun("busy")
    runs = [stage.launch(priority, priority=priority) for priority in ("low", "normal", "high")]
    assert {queue: count for queue, count in stage.board.waiting().items() if count} == {
        ("cpu", "low"): 1,
        ("cpu", "normal"): 1,
        ("cpu", "high"): 1,
    }
    stage.go("busy")
    assert {stage.ends(run) for run in (busy, *runs)} == {DagsterRunStatus.SUCCESS}
    # Had the worker taken a second message while it was busy, that would be the first one: low.
    assert [note["name"] for note in stage.notes()] == ["busy", "high", "normal", "low"]


def test_the_run_of_a_killed_worker_is_finished_by_another(stage: Stage) -> None:
    stage.worker("one")
    busy = stage.launch("busy", wait=True)
    stage.begun("busy")
    two = stage.worker("two")
    run_id = stage.launch("long", wait=True)
    before = stage.begun("long")
    stage.kill(two)
    stage.go("busy")
    after = stage.begun("long", times=2)
    stage.go("long")
    assert [stage.ends(busy), stage.ends(run_id)] == [DagsterRunStatus.SUCCESS] * 2
    stage.settled()
    assert before["parent"] == two.process.pid != after["parent"]
    assert len(stage.notes("long")) == 2
    run = stage.instance.get_run_by_id(run_id)
    assert run is not None
    assert run.tags[WORKER_TAG].startswith("one@")
    assert [seen.facts.worker.partition("@")[0] for seen in stage.board.workers()] == ["one"]


def test_a_run_that_kills_every_worker_is_given_up(stage: Stage) -> None:
    stage.worker("one")
    run_id = stage.launch("deadly", deadly=True)
    assert stage.ends(run_id) == DagsterRunStatus.FAILURE
    stage.settled()
    assert len(stage.notes("deadly")) == 3
    run = stage.instance.get_run_by_id(run_id)
    assert run is not None
    assert run.tags[ERROR_CODE_TAG] == "internal_error"
    letters = stage.board.dead_letters()
    assert [(letter["run"], letter["error_code"], letter["deliveries"]) for letter in letters] == [
        (run_id, "internal_error", 3)
    ]
    assert stage.ends(stage.launch("harmless")) == DagsterRunStatus.SUCCESS


def test_a_cancelled_run_stops_whether_it_waits_or_works(stage: Stage) -> None:
    stage.worker("one")
    working = stage.launch("working", wait=True)
    stage.begun("working")
    waiting = stage.launch("waiting")
    assert stage.instance.run_launcher.terminate(waiting)
    assert stage.instance.run_launcher.terminate(working)
    assert [stage.ends(working), stage.ends(waiting)] == [DagsterRunStatus.CANCELED] * 2
    stage.settled()
    assert [note["name"] for note in stage.notes()] == ["working"]
    assert not stage.instance.run_launcher.terminate(working)
    wait_for(lambda: stage.board.workers(), "the worker")
    assert stage.ends(stage.launch("next")) == DagsterRunStatus.SUCCESS
