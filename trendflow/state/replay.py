"""Replay: what a log says, as the documents of its managers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from trendflow.contracts.vocab import PROCESSORS
from trendflow.state import level1, level2, level3
from trendflow.state.documents import Document, Documents
from trendflow.state.events import Event
from trendflow.state.layout import GLOBAL, RUN

Reducer = Callable[[Documents, Event], Documents]


def no_run() -> Documents:
    """The documents of a run before the first event, of every processor that it might have."""
    return {RUN: level2.empty(), **{name: level3.empty(name) for name in sorted(PROCESSORS)}}


def no_deployment() -> Documents:
    return {GLOBAL: level1.empty()}


def apply_to_run(documents: Documents, event: Event) -> Documents:
    """Documents of levels 2 and 3 after one more event of the run's log."""
    return {name: _apply(name, document, event) for name, document in documents.items()}


def apply_to_deployment(documents: Documents, event: Event) -> Documents:
    """The document of level 1 after one more event of the global log."""
    return {GLOBAL: level1.apply(documents[GLOBAL], event)}


def _apply(name: str, document: Document, event: Event) -> Document:
    return level2.apply(document, event) if name == RUN else level3.apply(document, event)


def _replay(reducer: Reducer, documents: Documents, events: Iterable[Event]) -> Documents:
    for event in events:
        documents = reducer(documents, event)
    return documents


replay_run = partial(_replay, apply_to_run)
replay_deployment = partial(_replay, apply_to_deployment)
