"""Runs go through the broker and come to an end, whatever dies meanwhile."""

from __future__ import annotations

import psutil
import pytest
from dagster import DagsterRunStatus
from dagster._core.launcher import WorkerStatus
from redis import Redis

from trendflow.orchestration.queue.board import Board
from trendflow.orchestration.queue.celery_app import RUN_TASK, make_app
from trendflow.orchestration.queue.names import ERROR_CODE_TAG, WORKER_TAG
from trendflow_tests.orchestration.queue.stage import Broker, Stage, wait_for

pytestmark = pytest.mark.xdist_group("queue")


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # its parent has not looked yet
    except psutil.NoSuchProcess:
        return True


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


def test_a_worker_that_was_given_up_though_it_lives_does_not_fail_the_run_of_its_successor(stage: Stage) -> None:
    one = stage.worker("one")
    run_id = stage.launch("long", wait=True)
    before = stage.begun("long")
    stage.worker("two")
    stage.suspend(one)
    after = stage.begun("long", times=2)
    assert before["parent"] == one.process.pid != after["parent"]
    stage.fail(before["pid"])
    wait_for(lambda: has_ended(before["pid"]), "the end of the child")
    assert stage.status(run_id) == DagsterRunStatus.STARTED
    stage.go("long")
    assert stage.ends(run_id) == DagsterRunStatus.SUCCESS
    stage.kill(one)
    stage.settled()


def test_a_busy_child_dies_with_its_main_process(stage: Stage) -> None:
    two = stage.worker("two")
    run_id = stage.launch("long", wait=True)
    begun = stage.begun("long")
    stage.kill(two)
    wait_for(lambda: has_ended(begun["pid"]), "the end of the child")
    stage.worker("one")
    stage.go("long")
    assert stage.ends(run_id) == DagsterRunStatus.SUCCESS


def test_a_broker_that_comes_back_without_its_data_learns_who_works_on_what(stage: Stage) -> None:
    stage.worker("one")
    run_id = stage.launch("long", wait=True)
    begun = stage.begun("long")
    stage.broker.kill()
    stage.broker.forget()
    stage.broker.start()
    run = stage.instance.get_run_by_id(run_id)
    assert run is not None
    assert stage.instance.run_launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    wait_for(lambda: stage.board.is_expected(run_id), "the beat of the worker")
    assert stage.board.running() == {run_id: run.tags[WORKER_TAG]}
    assert stage.board.claim(run_id, "another").holder == run.tags[WORKER_TAG]
    stage.go("long")
    assert stage.ends(run_id) == DagsterRunStatus.SUCCESS
    assert stage.notes("long") == [begun]
    assert stage.board.running() == {}


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


def test_a_worker_that_is_ended_has_not_failed_its_run(stage: Stage) -> None:
    def deliveries() -> str | None:
        found = broker.hget("trendflow:deliveries", run_id)
        return None if found is None else str(found)

    broker = Redis.from_url(stage.broker.url, decode_responses=True)
    killed = stage.worker("one")
    run_id = stage.launch("long", wait=True)
    stage.begun("long")
    assert deliveries() == "1"
    stage.kill(killed)
    ended = stage.worker("one")
    stage.begun("long", times=2)
    assert deliveries() == "2"
    ended.process.terminate()
    ended.process.terminate()  # which says nothing new
    wait_for(lambda: deliveries() == "1", "the delivery not to count")
    stage.kill(ended)  # the run took longer than whoever ended the worker would wait
    ended = stage.worker("one")
    stage.begun("long", times=3)
    assert deliveries() == "2"
    ended.process.terminate()
    wait_for(lambda: deliveries() == "1", "the delivery not to count")
    stage.go("long")  # this time the run ends in time
    assert stage.ends(run_id) == DagsterRunStatus.SUCCESS
    assert ended.process.wait() == 0
    assert deliveries() is None


def test_only_the_holder_of_a_run_takes_its_delivery_back(broker: Broker) -> None:
    board = Board(broker.url)
    assert [board.claim("a run", worker).delivery for worker in ("dead", "new")] == [1, 2]
    board.uncount("a run", "dead")
    assert board.claim("a run", "new").delivery == 3
    board.uncount("a run", "new")
    assert board.claim("a run", "new").delivery == 3
    board.release("a run")
    board.uncount("a run", "new")
    assert not board.is_expected("a run")
    board.close()


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
