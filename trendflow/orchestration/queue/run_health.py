"""Finds messages whose worker is gone, and gives them back to their queues."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery

from trendflow.orchestration.queue.board import Board, SeenWorker, living
from trendflow.orchestration.queue.names import Rhythm

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What one look found: workers that fell silent, and how many messages were given back."""

    lost: tuple[str, ...] = ()
    restored: int = 0


class RunHealth:
    """Looks after the messages of one broker. Any number of processes may do so at the same time.

    The transport keeps what was taken and not acknowledged, but by itself gives it to somebody else only after the
    longest run could be over. Here a message is given back as soon as every living worker has spoken a whole beat after
    it was seen taken, and none holds it. That also finds what a worker took and lost before it could tell.
    """

    def __init__(self, board: Board, restore: Callable[[str], None], rhythm: Rhythm) -> None:
        self._board, self._restore, self._rhythm = board, restore, rhythm
        # Since when a message is known to be taken, for each time that it is: whoever takes what was given back has not
        # told of it yet.
        self._first_seen: dict[tuple[str, float], float] = {}

    def look(self) -> Found:
        """Look once. Raises `storage_unavailable` when the broker does not answer."""
        if self._board.uptime_s() < self._rhythm.silent_s:
            return Found()  # nobody could be heard while the broker was down
        workers = self._board.workers()
        alive = living(workers, self._rhythm.silent_s)
        lost = [seen for seen in workers if seen not in alive]
        for seen in lost:
            log.error("worker %s is silent for %.0f s and given up", seen.facts.worker, seen.silent_s)
            self._board.declare_lost(seen.facts.worker)
        orphans = self._orphans(alive)
        for tag in orphans:
            log.warning("message %s is held by no worker any more and given back", tag)
            self._restore(tag)
        return Found(tuple(seen.facts.worker for seen in lost), len(orphans))

    def _orphans(self, alive: list[SeenWorker]) -> list[str]:
        now = self._board.now()
        taken = self._board.taken()
        self._first_seen = {taking: self._first_seen.get(taking, now) for taking in taken}
        held = {tag for seen in alive for tag in seen.facts.held}
        heard_since = min((seen.beat_at for seen in alive), default=now)
        # A worker has a message a moment before it knows it; a beat may fall between.
        seen_before = heard_since - self._rhythm.beat_s
        return [tag for tag, at in taken if tag not in held and self._first_seen[tag, at] < seen_before]


class Restorer:
    """Gives a message back to the end of its queue that is served first; one that is gone by now is left alone."""

    def __init__(self, app: Celery) -> None:
        self._connection = app.connection_for_write()

    def __call__(self, tag: str) -> None:
        self._connection.default_channel.qos.restore_by_tag(tag)

    def close(self) -> None:
        self._connection.close()
