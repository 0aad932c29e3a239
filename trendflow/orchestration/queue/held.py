"""The messages that this worker has taken and not given back."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from celery.worker.request import Request

log = logging.getLogger(__name__)

_RETRY_S = 1.0

_lock = threading.Lock()
_requests: weakref.WeakValueDictionary[str, Request] = weakref.WeakValueDictionary()


class HeldRequest(Request):
    """A request that counts as held until it is acknowledged or rejected.

    Celery's own sets lose what runs when the connection to the broker does. A request that Celery itself drops is
    collected, and then not held either.
    """

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        with _lock:
            _requests[message.delivery_tag] = self

    def acknowledge(self) -> None:
        self._settle(self.message.ack)

    def reject(self, requeue: bool = False) -> None:
        self._settle(partial(self.message.reject, requeue=requeue))

    def _settle(self, settle: Callable[[], None]) -> None:
        """Repeat what Celery would try once, and only log, when the broker does not answer.

        The transport would go on counting the message against the prefetch of one, and this worker would never take
        another. Until the broker answers there is nothing else to do for this process; its pulse has its own thread.
        """
        while not self.message.acknowledged:
            try:
                settle()
            except self._connection_errors as exc:
                log.warning("a message cannot be settled yet: %s", type(exc).__name__)
                time.sleep(_RETRY_S)  # a broker that is away tells nobody when it is back
        self.acknowledged = True
        with _lock:
            _requests.pop(self.message.delivery_tag, None)


def held_tags() -> tuple[str, ...]:
    """Delivery tags, sorted."""
    with _lock:
        return tuple(sorted(_requests))
