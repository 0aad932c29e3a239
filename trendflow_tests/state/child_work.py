"""Writers that race for the numbers of one log, in threads and in child processes."""

from __future__ import annotations

from trendflow.state.clock import SystemClock
from trendflow.state.events import Draft
from trendflow.state.log_view import LogView, Writer
from trendflow.storage.object_store import ObjectStore
from trendflow_tests.state.runs import PATH, states_in


def append_many(store: ObjectStore, writer: str, count: int) -> None:
    """Append `count` events as the manager of the processor `writer`, numbered in their data."""
    view = LogView(states_in(store).run_log(PATH), SystemClock())
    for number in range(count):
        draft = Draft("component_progress", writer, data={"done": number, "total": count})
        assert view.append(Writer(writer, 3, lambda documents: 1), lambda documents, draft=draft: draft) is not None


def append_many_to(url: str, options: dict[str, str], writer: str, count: int) -> None:
    append_many(ObjectStore.open(url, options), writer, count)
