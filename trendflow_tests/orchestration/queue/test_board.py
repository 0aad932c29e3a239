"""What the board knows of a run: who has it, whether its message is anywhere, and what a lost board is told again."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Iterator

import pytest
import redis

from trendflow.orchestration.queue.board import Board, Claim, WorkerFacts
from trendflow.orchestration.queue.celery_app import RUN_TASK, make_app
from trendflow.orchestration.queue.child import CurrentRun
from trendflow.orchestration.queue.names import Rhythm
from trendflow.orchestration.queue.pulse import Pulse
from trendflow.orchestration.queue.run_health import RunHealth
from trendflow_tests.orchestration.queue.stage import Broker

pytestmark = pytest.mark.xdist_group("queue")

RUN = "00000000-0000-0000-0000-000000000001"


@pytest.fixture
def board(broker: Broker) -> Iterator[Board]:
    """An empty one."""
    redis.Redis.from_url(broker.url).flushall()
    made = Board(broker.url)
    yield made
    made.close()


def at_work(worker: str, run: str | None) -> WorkerFacts:
    return WorkerFacts(worker, "host", 1, ("cpu.normal",), (), run)


def test_a_board_that_lost_its_data_learns_the_holder_from_its_beat(board: Board, broker: Broker) -> None:
    board.beat(at_work("one", None))
    board.expect(RUN)
    assert board.claim(RUN, "one") == Claim(1, None)
    redis.Redis.from_url(broker.url).flushall()
    board.beat(at_work("one", RUN))
    assert board.is_expected(RUN)
    assert board.has(RUN)
    assert board.running() == {RUN: "one"}
    assert board.claim(RUN, "two") == Claim(0, "one")
    assert [seen.facts.run for seen in board.workers()] == [RUN]


class Startled(RunHealth):
    """Meets something that nobody expected, once, and looks again."""

    def __init__(self) -> None:
        self.looks = 0
        self.again = threading.Event()

    def look(self) -> None:
        self.looks += 1
        if self.looks == 1:
            raise ValueError("SYNTHETIC surprise")
        self.again.set()


def test_a_pulse_goes_on_after_what_nobody_expected(board: Board) -> None:
    health = Startled()
    pulse = Pulse(board, lambda: at_work("one", None), health, Rhythm(beat_s=0.01, look_s=0.01))
    pulse.start()
    assert health.again.wait(60)
    pulse.stop()
    assert board.workers() == []


def test_a_beat_that_is_late_does_not_bring_back_a_run_that_has_ended(board: Board) -> None:
    board.beat(at_work("one", None))
    board.claim(RUN, "one")
    board.release(RUN)
    board.beat(at_work("one", RUN))
    assert (board.is_expected(RUN), board.running()) == (False, {})


def test_a_worker_that_was_given_up_does_not_get_its_run_back(board: Board) -> None:
    board.beat(at_work("one", None))
    board.claim(RUN, "one")
    board.declare_lost("one")
    assert board.claim(RUN, "two") == Claim(2, None)
    assert not board.beat(at_work("one", RUN))
    assert board.running() == {RUN: "two"}


def test_a_run_is_there_while_it_has_a_message_or_a_living_holder(board: Board, broker: Broker) -> None:
    assert not board.has(RUN)
    board.expect(RUN)
    assert not board.has(RUN), "its launcher died before it published"
    app = make_app(broker.url, 60)
    app.send_task(RUN_TASK, args=[RUN], queue="cpu.normal")
    assert board.has(RUN)
    assert not board.has(RUN.replace("1", "2"))
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get("cpu.normal")
        assert message is not None
        assert board.has(RUN)
        board.beat(at_work("one", None))
        board.claim(RUN, "one")
        message.ack()
    assert board.has(RUN)
    board.leave("one")
    assert board.is_expected(RUN)
    assert not board.has(RUN), "nobody is left to end it"


def test_only_a_run_that_was_never_delivered_can_be_withdrawn(board: Board) -> None:
    board.expect(RUN)
    board.withdraw(RUN)
    assert not board.is_expected(RUN)
    board.expect(RUN)
    board.claim(RUN, "one")
    board.withdraw(RUN)
    assert board.is_expected(RUN)
    assert board.running() == {RUN: "one"}


def test_a_run_that_is_given_back_waits_for_nobody(board: Board) -> None:
    board.beat(at_work("one", None))
    board.claim(RUN, "one")
    board.let_go(RUN, "two")
    assert board.claim(RUN, "two") == Claim(0, "one")
    board.let_go(RUN, "one")
    assert board.claim(RUN, "two") == Claim(2, None)


def test_a_process_sees_what_its_child_works_on() -> None:
    current = CurrentRun()
    assert current.get() is None
    for run in (RUN, None):
        child = multiprocessing.get_context("fork").Process(target=current.set, args=(run,))
        child.start()
        child.join()
        assert (child.exitcode, current.get()) == (0, run)


def test_workers_of_another_release_may_say_more_or_less(board: Board, broker: Broker) -> None:
    board.beat(at_work("one", RUN))
    told = redis.Redis.from_url(broker.url, decode_responses=True)
    facts = json.loads(str(told.hget("trendflow:workers", "one")))
    del facts["run"]
    told.hset("trendflow:workers", "one", json.dumps({**facts, "of_tomorrow": 1}))
    assert [seen.facts for seen in board.workers()] == [at_work("one", None)]
