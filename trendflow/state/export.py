"""What is kept of a run that ended beside its state files: the lines of its log and its runtime report."""

from __future__ import annotations

import json

from trendflow.contracts.canonical import canonical_json
from trendflow.contracts.schema import SchemaRegistry, validate_document
from trendflow.state.documents import Document
from trendflow.state.errors import damaged
from trendflow.state.journal import Journal
from trendflow.state.layout import report_key
from trendflow.state.runtime_report import SCHEMA, runtime_report
from trendflow.storage.object_store import ObjectNotFound, ObjectStore


class RunExport:
    """The exports of one run. Both follow from its log, so whoever was cut short is made up for by the next writer."""

    def __init__(self, store: ObjectStore, folder: str, schemas: SchemaRegistry, journal: Journal) -> None:
        self._store, self._schemas, self._journal = store, schemas, journal
        self._key = report_key(folder)

    def write(self) -> None:
        """Write both as the log stands; there is a report of a run that ended only."""
        report = runtime_report(self._journal.export())
        if report is None:
            return
        problems = validate_document(self._schemas, SCHEMA, report)
        if problems:
            raise damaged(f"The runtime report of a run breaks its contract: {problems[0]}")
        self._store.put(self._key, canonical_json(report))

    def fold(self, end: int) -> int:
        """Remove the event objects, which end with the number `end`, in favour of the exports; how many there were."""
        report = self.report()
        if report is None or report["last_seq"] < end:
            self.write()
        return self._journal.fold()

    def report(self) -> Document | None:
        """The stored report, None when there is none that can be read."""
        try:
            document: Document = json.loads(self._store.get(self._key))
        except (ObjectNotFound, ValueError):
            return None
        return document if not validate_document(self._schemas, SCHEMA, document) else None
