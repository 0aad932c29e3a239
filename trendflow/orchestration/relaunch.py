"""Launching runs again that ended of something that may have passed: which, when, and how many at most."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunRecord, RunsFilter
from dagster._core.storage.tags import PARENT_RUN_ID_TAG, PARTITION_NAME_TAG, ROOT_RUN_ID_TAG

from trendflow.contracts.errors import ERROR_RULES
from trendflow.contracts.graph import ComponentGraph
from trendflow.orchestration.assets import MANIFEST, REPORT
from trendflow.orchestration.failures import ERROR_TAG
from trendflow.orchestration.queue.names import PRIORITY_TAG
from trendflow.orchestration.video_runs import latest_records, video_key

RETRY_TAG = "trendflow/retry"
"""Of a run that was launched again: for the how-manieth time."""
RETRIED = tuple(sorted(code for code, rule in ERROR_RULES.items() if rule.max_retries))


@dataclass(frozen=True)
class RetryBudget:
    """How often a run and how many runs are launched again.

    A run: as often as its error code may be retried, after `waits_s` seconds each; beyond the last wait it stays. All
    runs together: `share` of those that ended within `window`, but `at_least` so many. An outage would else launch
    everything again that it stopped, at a deployment that has just come back, or has not.
    """

    waits_s: tuple[float, ...] = (30.0, 60.0, 120.0)
    share: float = 0.2
    at_least: int = 10
    window: timedelta = timedelta(hours=1)
    given_up: timedelta = timedelta(hours=24)
    """A run that could not be launched again within this time stays as it is."""


@dataclass(frozen=True)
class Relaunch:
    """A run to be launched again, for the `attempt`-th time."""

    run: DagsterRun
    error_code: str
    attempt: int
    wait_s: float

    @property
    def partition_key(self) -> str:
        return self.run.tags[PARTITION_NAME_TAG]

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the new run. Parent and root make the UI show the runs as what they are."""
        kept = {name: self.run.tags[name] for name in (PRIORITY_TAG,) if name in self.run.tags}
        root = self.run.tags.get(ROOT_RUN_ID_TAG, self.run.run_id)
        return {
            **kept,
            RETRY_TAG: str(self.attempt),
            PARENT_RUN_ID_TAG: self.run.run_id,
            ROOT_RUN_ID_TAG: root,
        }


@dataclass(frozen=True)
class RelaunchPlan:
    """`due` fit into the budget, the oldest first. `held` would be due and do not, `waiting` have their time to wait.

    `spent` of `allowed` launches are used up within the window.
    """

    due: tuple[Relaunch, ...]
    held: int
    waiting: int
    spent: int
    allowed: int

    @property
    def reason(self) -> str:
        """What is going on, in one sentence."""
        if self.held:
            return f"{self.held} runs are held back: {self.spent} of {self.allowed} retries of this hour are used up."
        if self.waiting:
            return f"{self.waiting} runs wait before they are launched again."
        return "No run ended of an error that may pass."


def plan_relaunches(
    instance: DagsterInstance,
    graph: ComponentGraph,
    now: datetime | None = None,
    budget: RetryBudget | None = None,
) -> RelaunchPlan:
    """What to launch again of the runs that the daemon launched, by a submission, a person or a backfill."""
    now, budget = now or datetime.now(UTC), budget or RetryBudget()
    found = list(_candidates(instance, graph, now, budget))
    ready = [relaunch for relaunch, at in found if at <= now]
    since = now - budget.window
    spent = instance.get_runs_count(
        RunsFilter(tags={RETRY_TAG: [str(number + 1) for number in range(len(budget.waits_s))]}, created_after=since)
    )
    ended = instance.get_runs_count(
        RunsFilter(statuses=[DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE], updated_after=since)
    )
    allowed = max(budget.at_least, int(budget.share * ended))
    due = tuple(ready[: max(0, allowed - spent)])
    return RelaunchPlan(due, len(ready) - len(due), len(found) - len(ready), spent, allowed)


def _candidates(
    instance: DagsterInstance, graph: ComponentGraph, now: datetime, budget: RetryBudget
) -> Iterator[tuple[Relaunch, datetime]]:
    """Failed runs with a retry left, and when it is due, the oldest first."""
    filters = RunsFilter(
        statuses=[DagsterRunStatus.FAILURE], tags={ERROR_TAG: list(RETRIED)}, updated_after=now - budget.given_up
    )
    failed = [
        record
        for record in instance.get_run_records(filters, ascending=True)
        if _is_ours(graph, record.dagster_run) and _retries_left(record.dagster_run, budget) > 0
    ]
    latest = latest_records(instance, graph, {record.dagster_run.tags[PARTITION_NAME_TAG] for record in failed})
    for record in failed:
        run = record.dagster_run
        # A later attempt counts, whoever launched it.
        if latest[run.tags[PARTITION_NAME_TAG]].dagster_run.run_id == run.run_id:
            attempt = _retries(run) + 1
            wait_s = budget.waits_s[attempt - 1]
            due_at = _ended_at(record) + timedelta(seconds=wait_s)
            yield Relaunch(run, run.tags[ERROR_TAG], attempt, wait_s), due_at


def _is_ours(graph: ComponentGraph, run: DagsterRun) -> bool:
    """A video run and nothing else that the daemon launched.

    Who runs one in a process of their own sees how it ends, and decides.
    """
    if run.remote_job_origin is None or video_key(graph, run) is None:
        return False
    mine = {*graph.components, MANIFEST, REPORT}
    return run.asset_selection is None or {key.path[-1] for key in run.asset_selection} <= mine


def _retries(run: DagsterRun) -> int:
    return int(run.tags.get(RETRY_TAG, 0))


def _retries_left(run: DagsterRun, budget: RetryBudget) -> int:
    return min(ERROR_RULES[run.tags[ERROR_TAG]].max_retries, len(budget.waits_s)) - _retries(run)


def _ended_at(record: RunRecord) -> datetime:
    if record.end_time is not None:
        return datetime.fromtimestamp(record.end_time, UTC)
    return record.update_timestamp.replace(tzinfo=UTC)
