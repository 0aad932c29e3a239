"""Progress: components report units done; whoever watches the process subscribes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class ProgressEvent:
    """`state` ∈ running, done. `done`/`total` count the component's units; `outcome` is set when done."""

    component: str
    state: str
    done: int = 0
    total: int = 0
    outcome: str = ""


Listener = Callable[[ProgressEvent], None]
_listeners: list[Listener] = []


def emit(event: ProgressEvent) -> None:
    for listener in list(_listeners):
        listener(event)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Deliver events of this process to `listener` inside the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
