"""Folding: what ended keeps its journal as one file instead of one object per event."""

from __future__ import annotations

from trendflow.state.layout import RUN
from trendflow.state.run_manager import RunManager
from trendflow.state.store import StateStore
from trendflow.state.transitions import RUN_END


def fold_run(states: StateStore, run_path: str, *, holder: str) -> int:
    """Fold the events of a run that ended into `state_events.jsonl`; returns how many objects were removed.

    A run that lives, or was never accepted, is left alone. State files that lag behind the log, because their manager
    was cut short at the end, are brought up to date before: readers of a folded log rely on them.
    """
    log = states.run_log(run_path)
    documents, part = log.recover()
    if documents[RUN]["status"] not in RUN_END:
        return 0
    saved = log.saved(log.checkpoints)
    if not saved or any(document["last_seq"] < part.end for document in saved.values()):
        manager = RunManager.open(states, run_path, holder=holder, only_if=RUN_END)
        if manager is None:
            return 0
        manager.close()
    return log.journal.fold()
