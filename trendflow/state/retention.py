"""Folding: what ended keeps its journal as one file instead of one object per event. Forgetting: a deleted video."""

from __future__ import annotations

from trendflow.contracts.errors import TrendFlowError
from trendflow.state.documents import Document
from trendflow.state.errors import Fenced
from trendflow.state.global_manager import GlobalManager
from trendflow.state.layout import GLOBAL, RUN
from trendflow.state.run_manager import RunManager
from trendflow.state.store import StateStore
from trendflow.state.transitions import RUN_END
from trendflow.storage.retry import ContentionPolicy, exhausted


def fold_run(states: StateStore, run_path: str, *, holder: str) -> int:
    """Fold the events of a run that ended into `state_events.jsonl`; returns how many objects were removed.

    A run that lives, or was never accepted, is left alone. State files that lag behind the log, because their manager
    was cut short at the end, are brought up to date before: readers of a folded log rely on them. So is the report.
    """
    log = states.run_log(run_path)
    documents, part = log.recover()
    if documents[RUN]["status"] not in RUN_END:
        return 0
    saved, end = log.saved(log.checkpoints), part.end
    if not saved or any(document["last_seq"] < part.end for document in saved.values()):
        manager = RunManager.open(states, run_path, holder=holder, only_if=RUN_END)
        if manager is None:
            return 0
        manager.close()
        end = manager.view.run["last_seq"]
    return states.run_export(run_path).fold(end)


def forget_video(states: StateStore, platform_id: str, video_id: str, *, holder: str) -> None:
    """Take the runs of a video out of level 1. Whoever manages level 1 is fenced off and has to open it again.

    The log names runs in its events, and numbers may not be missing from it, so its history goes as a whole: the
    state file knows what it came to.
    """
    folder = f"{platform_id}/{video_id}/"
    for _ in ContentionPolicy().attempts():
        log = states.global_log()
        manager = GlobalManager.open(states, holder=holder)
        clean = _without(manager.document, folder)
        try:
            log.checkpoints.write(GLOBAL, clean)
            manager.follow()
        except Fenced:
            continue  # by one that knows the video, for it opened level 1 before the file was written
        # Whoever opens it from here on begins with that file, and needs what was written since.
        log.journal.fold(_NO_HISTORY, saved_seq=clean["last_seq"])
        return
    raise exhausted(TrendFlowError("storage_unavailable", "Level 1 stayed contended for too long."))


_NO_HISTORY = "9999"
"""Later than any event."""


def _without(document: Document, folder: str) -> Document:
    """Level 1 without the runs below a folder of the store."""
    return {
        **document,
        "runs": {path: row for path, row in document["runs"].items() if not path.startswith(folder)},
        "batches": {
            name: {**row, "runs": [path for path in row["runs"] if not path.startswith(folder)]}
            for name, row in document["batches"].items()
        },
        "workers": {
            name: {**row, "running": [path for path in row["running"] if not path.startswith(folder)]}
            for name, row in document["workers"].items()
        },
    }
