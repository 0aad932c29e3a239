"""Silent workers are given up, what they held goes back, and nobody else loses anything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from kombu import Connection

from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.queue.board import Board, Claim, WorkerFacts
from trendflow.orchestration.queue.celery_app import RUN_TASK, make_app
from trendflow.orchestration.queue.names import Rhythm
from trendflow.orchestration.queue.run_health import Found, Restorer, RunHealth
from trendflow_tests.orchestration.queue.stage import Broker, silence
from trendflow_tests.ports import held_ports

pytestmark = pytest.mark.xdist_group("queue")

SILENT_S = 3600.0


@pytest.fixture
def taken(broker: Broker) -> Iterator[list[str]]:
    """Two messages that were taken from their queue and not acknowledged."""
    redis.Redis.from_url(broker.url).flushall()
    app = make_app(broker.url, 60)
    for run in ("a", "b"):
        app.send_task(RUN_TASK, args=[run], queue="cpu.normal")
    with app.connection_for_read() as connection:
        yield [take(connection), take(connection)]


def take(connection: Connection) -> str:
    message = connection.default_channel.basic_get("cpu.normal")
    assert message is not None
    return str(message.delivery_tag)


def facts(worker: str, *held: str) -> WorkerFacts:
    return WorkerFacts(worker, "host", 1, ("cpu.normal",), held)


class OldBoard(Board):
    """The board of a broker that runs for long."""

    def uptime_s(self) -> float:
        return 86400.0


def test_only_what_the_silent_worker_held_goes_back(broker: Broker, taken: list[str]) -> None:
    board, restorer = OldBoard(broker.url), Restorer(make_app(broker.url, 60))
    rhythm = Rhythm(beat_s=0, silent_s=SILENT_S)
    health = RunHealth(board, restorer, rhythm)
    assert board.beat(facts("dead", taken[0]))
    assert board.beat(facts("alive", taken[1]))
    assert board.claim("a", "dead") == Claim(1, None)
    assert board.claim("a", "other") == Claim(0, "dead")
    assert health.look() == Found()
    silence(broker, "dead", SILENT_S)
    young = RunHealth(Board(broker.url), restorer, rhythm)
    assert young.look() == Found(), "nobody can tell who is silent before the broker runs for so long"
    assert board.beat(facts("alive", taken[1]))  # everybody has spoken since the messages were seen taken
    assert health.look() == Found(("dead",), 1)
    assert (board.unacknowledged(), board.waiting()["cpu", "normal"]) == ([taken[1]], 1)
    assert [seen.facts for seen in board.workers()] == [facts("alive", taken[1])]
    assert not board.beat(facts("dead", taken[0])), "a worker that was given up may not come back"
    assert board.claim("a", "other") == Claim(2, None)
    assert board.running() == {"a": "other"}
    board.release("a")
    assert board.running() == {}


def test_what_nobody_tells_of_goes_back_once_everybody_has_spoken(broker: Broker, taken: list[str]) -> None:
    board = OldBoard(broker.url)
    given_back: list[str] = []
    health = RunHealth(board, given_back.append, Rhythm(beat_s=0, silent_s=300))
    board.beat(facts("first", taken[0]))
    board.beat(facts("second"))
    assert health.look() == Found()  # both may have taken it since they spoke
    board.beat(facts("first", taken[0]))
    assert health.look() == Found()
    board.beat(facts("second"))
    assert health.look() == Found((), 1)
    assert given_back == [taken[1]]


def test_what_was_given_back_and_taken_again_is_not_given_back_twice(broker: Broker, taken: list[str]) -> None:
    board, app = OldBoard(broker.url), make_app(broker.url, 60)
    restorer, rhythm = Restorer(app), Rhythm(beat_s=0, silent_s=SILENT_S)
    looking = [RunHealth(board, restorer, rhythm) for _ in range(2)]
    board.beat(facts("dead", taken[0]))
    board.beat(facts("alive", taken[1]))
    assert [health.look() for health in looking] == [Found(), Found()]
    silence(broker, "dead", SILENT_S)
    board.beat(facts("alive", taken[1]))
    assert looking[0].look() == Found(("dead",), 1)
    with app.connection_for_read() as connection:
        assert take(connection) == taken[0]
        # Whoever has it now has not told so yet, and both lookers have seen it taken long before.
        assert [health.look() for health in looking] == [Found(), Found()]
        board.beat(facts("alive", *taken))
        assert [health.look() for health in looking] == [Found(), Found()]
        assert sorted(board.unacknowledged()) == sorted(taken)


def test_a_broker_that_does_not_answer_is_a_typed_error() -> None:
    with held_ports(1) as ports, pytest.raises(TrendFlowError) as refused:
        Board(f"redis://127.0.0.1:{ports[0]}/0").workers()
    assert refused.value.error_code == "storage_unavailable"
