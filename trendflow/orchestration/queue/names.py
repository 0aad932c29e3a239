"""Names and numbers of the queue that its parts agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

DeviceQueue = Literal["cpu", "gpu"]
Priority = Literal["high", "normal", "low"]

DEVICE_QUEUES: tuple[DeviceQueue, ...] = get_args(DeviceQueue)
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
DEFAULT_PRIORITY: Priority = "normal"

PRIORITY_TAG = "trendflow/priority"
WORKER_TAG = "trendflow/worker"
ERROR_CODE_TAG = "trendflow/error_code"

MAX_DELIVERIES = 3
LOW_EVERY = 10
"""Of so many messages that a worker takes, one at least is of low priority while there is any."""


def queue_name(device: DeviceQueue, priority: Priority) -> str:
    """The queue of one kind of worker and one class of priority.

    A queue for each class, for the transport orders messages of one queue by their priority without exception: low
    ones would starve.
    """
    return f"{device}.{priority}"


def priority_of(queue: str) -> Priority:
    """The class of a queue. Raises `ValueError` for a name that `queue_name` does not make."""
    return PRIORITIES[PRIORITIES.index(queue.rpartition(".")[2])]


@dataclass(frozen=True)
class Rhythm:
    """How often workers tell that they live, look after each other and ask whether their run is cancelled, seconds.

    A worker that is dead is noticed after `silent_s + look_s` at the latest.
    """

    beat_s: float = 15.0
    silent_s: float = 45.0
    look_s: float = 5.0
    cancel_look_s: float = 5.0
