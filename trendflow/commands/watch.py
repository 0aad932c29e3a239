"""Watching the runs of a submission until they have ended."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from trendflow.commands.console import err
from trendflow.contracts.errors import TrendFlowError
from trendflow.orchestration.retries import may_be_launched_again
from trendflow.submission.items import Submission
from trendflow.submission.outcomes import Outcome, Outcomes

LOOK_SEC = 2.0
_COMES_BACK_SEC = 180.0
"""After a failure that passes: the longest wait before a run is launched again (120 s), and time to see it."""
_LINES = 8
"""Runs that have a line of their own at a time."""


def watch(outcomes: Outcomes, submission: Submission, look_sec: float = LOOK_SEC) -> None:
    """Return when all new runs of the submission have ended, and show meanwhile how they go.

    Raises `cancelled` when the user interrupts it: that ends the watching and nothing else.
    """
    try:
        _watch(outcomes, submission, look_sec)
    except KeyboardInterrupt:
        raise TrendFlowError(
            "cancelled",
            f"Stopped watching; the runs go on, see: trendflow submissions {submission.submission_id}",
        ) from None


def _watch(outcomes: Outcomes, submission: Submission, look_sec: float) -> None:
    left = {message.run_path for _, message in submission.messages}
    ended: Counter[str] = Counter()
    with _Display(len(left)) as display:
        while left:
            found = outcomes.now(submission, left)
            over = [outcome for outcome in found.values() if outcome.has_ended and not _may_come_back(outcome)]
            left -= {outcome.run_path for outcome in over}
            ended.update(outcome.status or "gone" for outcome in over)
            display.show(ended, over, [found[path] for path in sorted(left)])
            if left:
                time.sleep(look_sec)  # the state lies in a store, which calls nobody


def _may_come_back(outcome: Outcome) -> bool:
    """Whether a run that has just failed may be launched again by the deployment."""
    if outcome.status != "error" or outcome.error_code is None or outcome.finished_at is None:
        return False
    if not may_be_launched_again(outcome.error_code, of_component=outcome.failed_component is not None):
        return False
    return (datetime.now(UTC) - datetime.fromisoformat(outcome.finished_at)).total_seconds() < _COMES_BACK_SEC


class _Display:
    """One line for all runs and one for each that is at work; without a terminal, a line for each that ended."""

    def __init__(self, total: int) -> None:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<40}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, console=err, disable=not err.is_terminal)
        self._whole = self._progress.add_task("runs", total=total, note="")
        self._lines: dict[str, TaskID] = {}

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, ended: Counter[str], over: list[Outcome], left: list[Outcome]) -> None:
        waiting = sum(outcome.status in ("pending", "queued") for outcome in left)
        counts = {**ended, "running": len(left) - waiting, "waiting": waiting}
        note = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        self._progress.update(self._whole, completed=ended.total(), note=note)
        for outcome in over:
            if self._progress.disable:
                err.print(f"{outcome.run_key} {outcome.status or 'gone'}", highlight=False, soft_wrap=True)
            if outcome.run_path in self._lines:
                self._progress.remove_task(self._lines.pop(outcome.run_path))
        for outcome in left:
            if outcome.status in ("running", "recovering"):
                self._show_run(outcome)

    def _show_run(self, outcome: Outcome) -> None:
        line = self._lines.get(outcome.run_path)
        if line is None:
            if len(self._lines) == _LINES:
                return
            line = self._progress.add_task(outcome.run_key.partition("/")[0][:40], total=100, note="")
            self._lines[outcome.run_path] = line
        note = outcome.current_component or (outcome.status or "")
        self._progress.update(line, completed=round(100 * outcome.progress), note=note)
