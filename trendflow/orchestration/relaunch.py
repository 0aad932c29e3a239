"""Launching runs again that an outage ended: which, when, and how many at most. `retries` has the rule for one run."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunRecord, RunsFilter
from dagster._core.storage.tags import PARENT_RUN_ID_TAG, PARTITION_NAME_TAG, ROOT_RUN_ID_TAG

from trendflow.contracts.errors import ERROR_RULES
from trendflow.contracts.graph import ComponentGraph
from trendflow.orchestration.assets import MANIFEST, REPORT
from trendflow.orchestration.queue.names import ERROR_CODE_TAG, PRIORITY_TAG
from trendflow.orchestration.retries import LEFT_TAG, RETRY_TAG, USED_TAG
from trendflow.orchestration.video_runs import latest_records, video_key

PAGE = 100
_MOST = max(rule.max_retries for rule in ERROR_RULES.values())
_SOME_LEFT = [str(number) for number in range(1, _MOST + 1)]


@dataclass(frozen=True)
class RetryBudget:
    """When a run and how many runs are launched again.

    A run: after `waits_s` seconds each. All runs together: `share` of those that ended within `window`, but `at_least`
    so many. An outage would else launch everything again that it stopped, at a deployment that has just come back, or
    has not.
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
            USED_TAG: str(int(self.run.tags.get(USED_TAG, 0)) + 1),
            PARENT_RUN_ID_TAG: self.run.run_id,
            ROOT_RUN_ID_TAG: root,
        }


@dataclass(frozen=True)
class RelaunchPlan:
    """`due` fit into the budget, the oldest first. `held` would be due and do not, `waiting` have their time to wait.

    `spent` of `allowed` launches are used up within the window. `over` are none of ours or have a later attempt; once
    they are closed (`close`) no plan looks at them again. Beyond a full budget only the number of runs is known: all of
    them count as `held`.
    """

    due: tuple[Relaunch, ...]
    held: int
    waiting: int
    spent: int
    allowed: int
    over: tuple[DagsterRun, ...] = ()

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
    since = now - budget.window
    attempts = [str(number + 1) for number in range(len(budget.waits_s))]
    spent = instance.get_runs_count(RunsFilter(tags={RETRY_TAG: attempts}, created_after=since))
    ended = instance.get_runs_count(
        RunsFilter(statuses=[DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE], updated_after=since)
    )
    allowed = max(budget.at_least, int(budget.share * ended))
    places = max(0, allowed - spent)
    failed = RunsFilter(
        statuses=[DagsterRunStatus.FAILURE], tags={LEFT_TAG: _SOME_LEFT}, updated_after=now - budget.given_up
    )
    ready: list[Relaunch] = []
    over: list[DagsterRun] = []
    waiting = seen = 0
    for page in _pages(instance, failed):
        seen += len(page)
        for record, attempt in zip(page, _attempts(instance, graph, page, budget), strict=True):
            if attempt is None:
                over.append(record.dagster_run)
            elif _ended_at(record) + timedelta(seconds=attempt.wait_s) > now:
                waiting += 1
            else:
                ready.append(attempt)
        if len(ready) > places:
            break
    unseen = max(0, instance.get_runs_count(failed) - seen)
    held = max(0, len(ready) - places) + unseen
    return RelaunchPlan(tuple(ready[:places]), held, waiting, spent, allowed, tuple(over))


def close(instance: DagsterInstance, run: DagsterRun) -> None:
    """No plan looks at this run again."""
    instance.add_run_tags(run.run_id, {LEFT_TAG: "0"})


def _pages(instance: DagsterInstance, filters: RunsFilter) -> Iterator[list[RunRecord]]:
    """The records in pages, the oldest first."""
    cursor: str | None = None
    while True:
        page = list(instance.get_run_records(filters, limit=PAGE, cursor=cursor, ascending=True))
        if page:
            yield page
        if len(page) < PAGE:
            return
        cursor = page[-1].dagster_run.run_id


def _attempts(
    instance: DagsterInstance, graph: ComponentGraph, page: list[RunRecord], budget: RetryBudget
) -> Iterator[Relaunch | None]:
    """The next attempt at each of these runs; None where there is none to be made."""
    ours = [record for record in page if _is_ours(graph, record.dagster_run)]
    oldest = min((record.create_timestamp for record in ours), default=None)
    latest = latest_records(
        instance, graph, {record.dagster_run.tags[PARTITION_NAME_TAG] for record in ours}, since=oldest
    )
    last = {record.dagster_run.run_id for record in latest.values()}
    for record in page:
        run = record.dagster_run
        attempt = int(run.tags.get(RETRY_TAG, 0)) + 1
        # A later attempt counts, whoever launched it.
        if run.run_id not in last or attempt > len(budget.waits_s):
            yield None
        else:
            yield Relaunch(run, run.tags[ERROR_CODE_TAG], attempt, budget.waits_s[attempt - 1])


def _is_ours(graph: ComponentGraph, run: DagsterRun) -> bool:
    """A video run and nothing else that the daemon launched.

    Who runs one in a process of their own sees how it ends, and decides.
    """
    if run.remote_job_origin is None or video_key(graph, run) is None:
        return False
    mine = {*graph.components, MANIFEST, REPORT}
    return run.asset_selection is None or {key.path[-1] for key in run.asset_selection} <= mine


def _ended_at(record: RunRecord) -> datetime:
    if record.end_time is not None:
        return datetime.fromtimestamp(record.end_time, UTC)
    return record.update_timestamp.replace(tzinfo=UTC)
