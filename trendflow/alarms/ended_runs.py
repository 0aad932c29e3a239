"""What became of the runs that ended last: the facts that rules look at, without ids."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.state.store import StateStore
from trendflow.state.transitions import RUN_END
from trendflow.storage.result_store import ResultStore

_READERS = 8


@dataclass(frozen=True)
class EndedRun:
    """How a run ended, and everything that went wrong in it. `error_codes` are those of its components too."""

    finished_at: datetime
    status: str
    error_codes: frozenset[str] = frozenset()
    empty_reasons: frozenset[str] = frozenset()
    out_of_memory: bool = False


class EndedRuns:
    """Reads every ended run once: a process that keeps it pays for the new ones alone. Not for several threads.

    `text_readers` are the components that read the document of a video. That one found none is their error in every run
    that was submitted without a document: how videos are submitted, and nothing that went wrong here.
    """

    def __init__(self, states: StateStore, results: ResultStore, text_readers: Collection[str] = ()) -> None:
        self._states, self._results, self._text_readers = states, results, frozenset(text_readers)
        self._known: dict[tuple[str, str, str], EndedRun] = {}

    def latest(self, count: int) -> list[EndedRun]:
        """The last `count` runs that ended and were not cancelled, newest first.

        Somebody's wish to stop a run says nothing about the deployment.
        """
        rows = self._states.read_global()["runs"]
        ended = sorted(
            (
                (str(row["finished_at"]), path, str(row["status"]))
                for path, row in rows.items()
                if row["status"] in RUN_END and row["status"] != "cancelled"
            ),
            reverse=True,
        )[:count]
        new = [run for run in ended if run not in self._known]
        with ThreadPoolExecutor(_READERS) as readers:
            read = dict(zip(new, readers.map(lambda run: self._read(*run), new), strict=True))
        # A run that was executed again has another end; the earlier one is forgotten, as old runs are.
        self._known = {run: read[run] if run in read else self._known[run] for run in ended}
        return list(self._known.values())

    def _read(self, finished_at: str, run_path: str, status: str) -> EndedRun:
        at = datetime.fromisoformat(finished_at)
        try:
            manifest = self._results.read_manifest(run_path)
            codes = set(self._run_codes(run_path)) if status == "error" else set()
        except TrendFlowError as error:
            if error.error_class == "transient":
                raise
            return EndedRun(at, status, frozenset({error.error_code}))
        rows: Iterable[Mapping[str, Any]] = [] if manifest is None else manifest["components"]
        without = self._text_readers if manifest is not None and manifest["run"]["document_digest"] is None else ()
        codes |= {
            row["error_code"]
            for row in rows
            if row["status"] == "error" and not (row["name"] in without and row["error_code"] == "dependency_missing")
        }
        return EndedRun(
            finished_at=at,
            status=status,
            error_codes=frozenset(codes),
            empty_reasons=frozenset(row["empty_reason"] for row in rows if row["status"] == "empty"),
            out_of_memory="out_of_memory" in codes or any(row["batching"]["oom_retries"] for row in rows),
        )

    def _run_codes(self, run_path: str) -> list[str]:
        """The code that ended the run, which may be no component's: its worker was lost, its message was given up."""
        view = self._states.read_run(run_path)
        return [] if view is None or view.run["error_code"] is None else [view.run["error_code"]]
