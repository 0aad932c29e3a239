"""Upkeep beside garbage collection: logs become files, the run index keeps its size, old submissions go.

Index entries that lead nowhere are garbage and go with it (`shared_rules.IndexRule`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from trendflow.contracts.canonical import utc_text
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.vocab import PLATFORM_IDS
from trendflow.retention.clocks import require_same_clock
from trendflow.retention.policy import RetentionPolicy
from trendflow.state.global_manager import GlobalManager
from trendflow.state.retention import fold_run
from trendflow.state.store import StateStore
from trendflow.state.transitions import RUN_END
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.run_index import RunIndex
from trendflow.submission.inbox import Inbox

log = logging.getLogger(__name__)

_QUIET = timedelta(hours=1)
"""A log that took an event within this time may be followed by somebody who would have to read it all again."""


@dataclass(frozen=True)
class CompactionReport:
    """Counts of what a compaction did: events are objects that became lines of a file."""

    videos_evicted: int
    run_events: int
    global_events: int
    submissions: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


class Compaction:
    """One deployment's. May be stopped and repeated at any point; two at once do no harm."""

    def __init__(
        self,
        store: ObjectStore,
        schemas: SchemaRegistry,
        states: StateStore,
        *,
        holder: str,
        policy: RetentionPolicy | None = None,
    ) -> None:
        self._store, self._schemas, self._states = store, schemas, states
        self._holder, self._policy = holder, policy or RetentionPolicy()

    def run(self) -> CompactionReport:
        """Do all of it. What is damaged is left alone and logged.

        Raises `storage_unavailable`, and `config_invalid` when the time of this machine is not that of the store.
        """
        require_same_clock(self._store)
        now = datetime.fromisoformat(self._states.clock.utc())
        return CompactionReport(
            videos_evicted=RunIndex(self._store).evict(),
            run_events=sum(self._fold(path) for path in self._quiet_logs(now)),
            global_events=self._fold_level1(now),
            submissions=self._remove_submissions(now),
        )

    def _quiet_logs(self, now: datetime) -> Iterator[str]:
        """Runs whose log has event objects, all of them of some time ago."""
        for platform_id in sorted(PLATFORM_IDS):
            newest: dict[str, datetime] = {}
            for info in self._store.list(f"state/{platform_id}"):
                run_path, events, _ = info.key.removeprefix("state/").partition("/events/")
                if events:
                    newest[run_path] = max(info.last_modified, newest.get(run_path, info.last_modified))
            yield from (run_path for run_path, at in newest.items() if at <= now - _QUIET)

    def _fold(self, run_path: str) -> int:
        try:
            return fold_run(self._states, run_path, holder=self._holder)
        except TrendFlowError as error:
            if error.error_class == "transient":
                raise
            log.error("the log of a run is left as it is", extra={"error_code": error.error_code})
            return 0

    def _fold_level1(self, now: datetime) -> int:
        """Whoever schedules is fenced off by this and opens level 1 again, as after the start of another daemon."""
        if not self._states.read_global()["last_seq"]:
            return 0  # nobody has ever scheduled
        manager = GlobalManager.open(self._states, holder=self._holder)
        return manager.fold(utc_text(now - self._policy.state), utc_text(now - _QUIET))

    def _remove_submissions(self, now: datetime) -> int:
        runs = self._states.read_global()["runs"].values()
        live = [datetime.fromisoformat(row["submitted_at"]) for row in runs if row["status"] not in RUN_END]
        oldest = min([now - self._policy.submissions, *live])
        # A submission bears the day of its id, which may be the one before it was accepted.
        day = f"{oldest - timedelta(days=1):%Y%m%d}"
        return Inbox(self._store, self._schemas, self._states.clock).remove_before(day)
