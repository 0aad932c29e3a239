"""What the reducers of all levels share: documents, and which events count.

A state file *is* the state: a reducer takes the document and one event and returns a new document. Reducers are pure
and total, so that any log can be replayed; what may be written is decided before, by the managers. Each document is
a function of the log alone and remembers the number of its last event, so that each can be caught up by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trendflow.state.events import Event
from trendflow.state.layout import CONTROL

Document = dict[str, Any]
Documents = Mapping[str, Document]
"""By the manager that writes the file."""
Change = Callable[[Document, Event], Document]


def fresh(schema_version: str) -> Document:
    """What every state file holds, before the first event."""
    return {"schema_version": schema_version, "managers": {}, "last_seq": 0, "epoch": 0, "updated_at": None}


def reduce_event(document: Document, event: Event, own: str, changes: Mapping[str, Change]) -> Document:
    """Apply one event to the document of the manager `own`; an event that it holds already changes nothing.

    Fencing: of a manager only events of the epoch in force count. Those of a lower epoch come from one that was
    replaced, those of a higher one from one whose start is not in the log.
    """
    if event.seq <= document["last_seq"]:
        return document
    changed = {**document, "last_seq": event.seq}
    epoch = document["managers"].get(event.manager, 0)
    if event.type == "manager_started":
        if event.epoch <= epoch:
            return changed
        managers = {**document["managers"], event.manager: event.epoch}
        changed.update(managers=managers, epoch=managers.get(own, 0))
    elif event.type != "recovered" and event.manager != CONTROL and event.epoch != epoch:
        return changed
    change = changes.get(event.type)
    if change is not None:
        changed = change(changed, event)
    return {**changed, "updated_at": event.ts}


def epoch_of(documents: Documents, manager: str) -> int:
    """Epoch in force of a manager, 0 before it ever started."""
    document = documents.get(manager) or next(iter(documents.values()))
    return int(document["managers"].get(manager, 0))
