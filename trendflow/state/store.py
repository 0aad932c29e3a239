"""The state in an object store: its logs, and everything that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trendflow.contracts.schema import SchemaRegistry
from trendflow.state import level1, level2, level3
from trendflow.state.checkpoints import Checkpoints
from trendflow.state.clock import Clock, SystemClock
from trendflow.state.documents import Document, Documents
from trendflow.state.errors import IllegalTransition
from trendflow.state.events import Draft, Event, EventCodec
from trendflow.state.export import RunExport
from trendflow.state.journal import Journal
from trendflow.state.layout import CONTROL, GLOBAL, GLOBAL_FOLDER, RUN, run_folder
from trendflow.state.log_view import Log, LogView, Writer
from trendflow.state.replay import apply_to_deployment, apply_to_run, no_deployment, no_run
from trendflow.state.transitions import RUN_END
from trendflow.storage.object_store import ObjectStore


@dataclass(frozen=True)
class RunView:
    """A run as its log shows it: level 2, and level 3 by processor."""

    run: Document
    processors: Mapping[str, Document]

    @property
    def components(self) -> dict[str, Document]:
        """All components, by name."""
        return {name: row for document in self.processors.values() for name, row in document["components"].items()}


class StateStore:
    """Everything about state that needs no manager: reading, asking for a cancellation."""

    def __init__(self, store: ObjectStore, schemas: SchemaRegistry, clock: Clock | None = None) -> None:
        self._store, self._schemas = store, schemas
        self._codec = EventCodec(schemas)
        self.clock: Clock = clock or SystemClock()

    def run_log(self, run_path: str) -> Log:
        folder = run_folder(run_path)
        checkpoints = Checkpoints(self._store, folder, self._schemas)
        return Log(self._journal(folder), checkpoints, no_run, apply_to_run, _saved_run)

    def run_export(self, run_path: str) -> RunExport:
        folder = run_folder(run_path)
        return RunExport(self._store, folder, self._schemas, self._journal(folder))

    def global_log(self) -> Log:
        checkpoints = Checkpoints(self._store, GLOBAL_FOLDER, self._schemas)
        return Log(self._journal(GLOBAL_FOLDER), checkpoints, no_deployment, apply_to_deployment, _saved_deployment)

    def read_run(self, run_path: str) -> RunView | None:
        """The run as it stands, None when it was never accepted. Writes nothing."""
        documents, _ = self.run_log(run_path).recover()
        return view_of(documents)

    def read_global(self) -> Document:
        """Level 1 with `queue_position` of the runs that wait. Writes nothing."""
        documents, _ = self.global_log().recover()
        return level1.with_queue_positions(documents[GLOBAL])

    def events(self, run_path: str, after: int = 0) -> list[Event]:
        """Events of a run with `seq > after`, also of one whose log was folded."""
        part = self._journal(run_folder(run_path)).read(max(after, 1))
        return [event for event in part.events if event.seq > after]

    def request_cancel(self, run_path: str) -> bool:
        """Ask the run to stop; False when it has ended for good. Repeating the request changes nothing.

        Raises `IllegalTransition` for a run that was never accepted.
        """
        view = LogView(self.run_log(run_path), self.clock)

        def draft(documents: Documents) -> Draft | None:
            run = documents[RUN]
            if run["status"] is None:
                raise IllegalTransition.of(run_path, None, "cancelled")
            asked = _is_over(run) or run["cancel_requested_at"] is not None
            return None if asked else Draft("cancel_requested", run_path)

        view.append(Writer(CONTROL, 2, lambda _: 0), draft)
        return not _is_over(view.documents[RUN])

    def _journal(self, folder: str) -> Journal:
        return Journal(self._store, folder, self._codec)


def _is_over(run: Document) -> bool:
    return run["status"] in RUN_END and not level2.may_be_retried(run)


def view_of(documents: Documents) -> RunView | None:
    """Documents of a run's log as a view, None before the run was accepted."""
    run = documents[RUN]
    if run["status"] is None:
        return None
    return RunView(run, {name: documents[name] for name in sorted(run["processors"])})


def _saved_run(checkpoints: Checkpoints) -> Documents:
    run = checkpoints.read(RUN)
    if run is None:
        return {}
    return {RUN: run, **{name: checkpoints.read(name) or level3.empty(name) for name in run["processors"]}}


def _saved_deployment(checkpoints: Checkpoints) -> Documents:
    found = checkpoints.read(GLOBAL)
    return {} if found is None else {GLOBAL: found}
