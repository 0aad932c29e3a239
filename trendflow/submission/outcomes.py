"""What became of the runs of a submission: level 1 first, then the run's own log, then its manifest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from trendflow.contracts.identity import partition_key_of
from trendflow.contracts.manifest import Manifest, ends_run, run_status
from trendflow.contracts.vocab import RunState
from trendflow.state.log_view import LogView
from trendflow.state.status import overall_progress
from trendflow.state.store import RunView, StateStore, view_of
from trendflow.state.transitions import RUN_END
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore
from trendflow.submission.inbox import Inbox
from trendflow.submission.items import Exists, Item, Submission, path_of

_READERS = 16

Required = Callable[[str], Collection[str]]
"""Components of a profile whose failure fails the run."""


@dataclass(frozen=True)
class Outcome:
    """One run. `status` is None when nothing of it is kept any more. Times are UTC, `progress` is in [0, 1].

    `failed_component` is the one that ended it, if any did; `rows` and `skipped` are those of its manifest.
    """

    run_path: str
    status: RunState | None
    error_code: str | None = None
    error: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    failed_component: str | None = None
    progress: float = 0.0
    current_component: str | None = None
    rows: Sequence[Mapping[str, Any]] = ()
    skipped: Sequence[Mapping[str, Any]] = ()

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is to be expected of it."""
        return self.status is None or self.status in RUN_END

    @property
    def run_key(self) -> str:
        """`<video_id>/<run_id>`, as commands take it."""
        return partition_key_of(self.run_path)


def answering_run(inbox: Inbox, item: Item) -> str | None:
    """The run that answers an item, None for a refused one and for one that only its id is known of."""
    if isinstance(item, Exists):
        place = inbox.place_of(item.run_id)
        return None if place is None else place.run_path
    return path_of(item)


class Outcomes:
    """Reads the outcomes of runs, many at a time."""

    def __init__(self, store: ObjectStore, states: StateStore, inbox: Inbox, required: Required) -> None:
        self._results, self._states, self._inbox, self._required = ResultStore(store), states, inbox, required
        self._followed: dict[str, LogView] = {}

    def of(self, submission: Submission) -> list[Outcome | None]:
        """The outcome of each item, in the order of the items; None where no run answers it."""
        paths = [answering_run(self._inbox, item) for item in submission.items]
        found = self._read({path for path in paths if path is not None}, self._accepted_only(submission))
        return [None if path is None else found[path] for path in paths]

    def now(self, submission: Submission, run_paths: Collection[str]) -> dict[str, Outcome]:
        """Outcomes of some runs of a submission, without rows: less is read, for whoever asks again and again."""
        return self._read(run_paths, self._accepted_only(submission), with_manifests=False)

    def of_run(self, run_path: str) -> Outcome:
        """The outcome of one run."""
        return self._read([run_path], ())[run_path]

    def _read(
        self, run_paths: Collection[str], accepted: Collection[str], *, with_manifests: bool = True
    ) -> dict[str, Outcome]:
        """Outcomes by run. `accepted` are runs that level 1 does not know yet: they wait, unless more is known."""
        level1 = self._states.read_global()["runs"]

        def read(path: str) -> Outcome:
            listed = level1.get(path, {}).get("status")
            if listed == "pending" and not with_manifests:  # level 1 may lag, and is soon asked again
                return Outcome(path, "pending")
            manifest = self._results.read_manifest(path) if with_manifests else None
            # The log of a run that level 1 saw succeed says nothing more than its manifest, and takes longer to read.
            if listed == "success" and manifest is not None:
                view = None
            else:
                view = self._states.read_run(path) if with_manifests else self._follow(path)
            if view is None and manifest is None and not with_manifests:
                manifest = self._results.read_manifest(path)  # all that is left of a run that ended days ago
            if view is None and manifest is None:
                return Outcome(path, "pending" if path in accepted else listed)
            return self._outcome(path, view, manifest)

        with ThreadPoolExecutor(_READERS) as readers:
            return {outcome.run_path: outcome for outcome in readers.map(read, run_paths)}

    def _follow(self, path: str) -> RunView | None:
        """The run as it stands. What is known of a live one is kept, so that only news are read the next time."""
        log = self._followed.get(path)
        if log is None:
            log = self._followed[path] = LogView(self._states.run_log(path), self._states.clock)
        else:
            log.follow()
        view = view_of(log.documents)
        if view is None or view.run["status"] in RUN_END:
            del self._followed[path]
        return view

    def _outcome(self, path: str, view: RunView | None, manifest: Manifest | None) -> Outcome:
        rows: Sequence[Mapping[str, Any]] = [] if manifest is None else manifest["components"]
        skipped = [] if manifest is None else manifest["run"]["skipped"]
        if view is not None:
            run = view.run
            return Outcome(
                path,
                run["status"],
                run["error_code"],
                run["error"],
                run["started_at"],
                run["finished_at"],
                _failed(view),
                overall_progress(view),
                min(_running(view), default=None),
                rows,
                skipped,
            )
        assert manifest is not None  # the caller has one of the two
        required = self._required(manifest["run"]["profile"])
        status = run_status(manifest, required)
        failed: Mapping[str, Any] = next((row for row in rows if ends_run(row, required)), {})
        if status == "cancelled":
            failed = {"error": "The run was cancelled.", "error_code": status}
        return Outcome(
            path,
            status,
            failed.get("error_code"),
            failed.get("error"),
            min((row["started_at"] for row in rows), default=None),
            manifest["run"]["finished_at"],
            failed.get("name"),
            1.0 if status in RUN_END else 0.0,
            None,
            rows,
            skipped,
        )

    def _accepted_only(self, submission: Submission) -> set[str]:
        """Runs of the submission that level 1 has not taken in."""
        is_open = any(waiting.submission_id == submission.submission_id for waiting in self._inbox.open())
        return {message.run_path for _, message in submission.messages} if is_open else set()


def _failed(view: RunView) -> str | None:
    """The component whose error is that of the run."""
    code = view.run["error_code"]
    found = (name for name, row in view.components.items() if row["status"] == "error" and row["error_code"] == code)
    return None if code is None else next(found, None)


def _running(view: RunView) -> Iterable[str]:
    return (name for name, row in view.components.items() if row["status"] == "running")
