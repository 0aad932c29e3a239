"""In which order a worker looks at its queues."""

from __future__ import annotations

from collections.abc import Iterable

from trendflow.orchestration.queue.names import LOW_EVERY, PRIORITIES, priority_of


class FairOrder:
    """High before normal before low, but the tenth message at the latest is one of low priority if there is any.

    Kombu's transport asks it before every message (transport option `queue_order_strategy`), so it is what a worker
    takes next, not what a publisher guessed. Queues of one class take turns.
    """

    def __init__(self, queues: Iterable[str] = ()) -> None:
        self._queues = list(queues)
        self._since_low = 0

    def update(self, queues: Iterable[str]) -> None:
        """The queues that are consumed from now on."""
        self._queues = list(queues)

    def consume(self, count: int) -> list[str]:
        """The first `count` queues; the transport takes a message of the first one that has any."""
        low_first = self._since_low >= LOW_EVERY - 1
        ranks = {name: rank for rank, name in enumerate(PRIORITIES)}
        if low_first:
            ranks["low"] = -1
        return sorted(self._queues, key=lambda queue: ranks[priority_of(queue)])[:count]

    def rotate(self, last_used: str) -> str:
        """A message was taken from this queue."""
        if last_used in self._queues:
            self._queues.remove(last_used)
            self._queues.append(last_used)
        self._since_low = 0 if priority_of(last_used) == "low" else self._since_low + 1
        return last_used
