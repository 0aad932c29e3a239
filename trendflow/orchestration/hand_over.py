"""From messages to runs: what is accepted and has its turn becomes a run that Dagster is asked to launch.

Nothing is noted before it is seen: level 1 calls a run queued once Dagster has it. What a process leaves behind that
dies is therefore handed over again, and Dagster makes one run of one run key.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunRequest, RunsFilter
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.storage.tags import PRIORITY_TAG as DAGSTER_PRIORITY_TAG
from dagster._core.storage.tags import SENSOR_NAME_TAG

from trendflow.contracts.errors import TrendFlowError, as_typed
from trendflow.contracts.vocab import RunState
from trendflow.orchestration.acceptance import refuse
from trendflow.orchestration.deleted import tombstones
from trendflow.orchestration.deployment import Deployment
from trendflow.orchestration.jobs import PROCESS_VIDEO
from trendflow.orchestration.partitions import add_partitions
from trendflow.orchestration.processes import this_process
from trendflow.orchestration.queue.names import PRIORITY_TAG
from trendflow.orchestration.run_state import conclude
from trendflow.orchestration.runs import RunOrder, create_run
from trendflow.orchestration.scheduler import Level1, Scheduler
from trendflow.orchestration.video_runs import latest_records
from trendflow.orchestration.waiting_text import forget_text
from trendflow.state.retention import forget_video
from trendflow.state.transitions import RUN_END
from trendflow.submission.message import DOCUMENT_DIGEST, Message, Priority

log = logging.getLogger(__name__)

TAKE_SUBMISSIONS = "take_submissions"
"""The sensor that hands over; Dagster tags the runs that it launches with this name."""

_WORKERS = 8
_LAUNCHED = [status for status in NOT_FINISHED_STATUSES if status != DagsterRunStatus.NOT_STARTED]
_DAGSTER_PRIORITY: dict[Priority, str] = {"high": "10", "normal": "0", "low": "-10"}


@dataclass(frozen=True)
class _End:
    """How a run ended instead of being launched. Without `error` it was cancelled, or had ended well before."""

    status: RunState
    error: TrendFlowError | None = None


def hand_over(scheduler: Scheduler, level1: Level1, instance: DagsterInstance) -> list[RunRequest]:
    """One step of level 1. Returns the runs to be launched, of which some may have been asked for before.

    Raises the transient error that kept a message from becoming a run, unless other messages became runs.
    """
    level1.queue.step()
    level1.manager.checkpoint_if_due()
    expected = scheduler.expected
    for run_path in [path for path in expected if _has_ended(level1, path)]:
        del expected[run_path]
    for message in _known_to_dagster(scheduler, instance, expected.values()):
        level1.queue.queued(message)
        del expected[message.run_path]
    room = scheduler.deployment.settings.handed_over_runs - _in_hand(instance) - len(expected)
    if room > 0:
        # Those that are expected have not left the line.
        line = [message for message in level1.queue.take(room + len(expected)) if message.run_path not in expected]
        launched = _known_to_dagster(scheduler, instance, line[:room])  # by a process that died since
        for message in launched:
            level1.queue.queued(message)
        wanted = _wanted(scheduler, [message for message in line[:room] if message not in launched])
        made = _make(scheduler.deployment, level1, wanted)
        expected |= {message.run_path: message for message in made}
    # All of them, each time: one that nobody added, or somebody removed, would keep the others from being launched.
    add_partitions(instance, [message.identity.partition_key for message in expected.values()])
    return [run_request(message) for message in expected.values()]


def run_request(message: Message) -> RunRequest:
    """The Dagster run of a message. One run key makes one run, however often it is asked for."""
    return RunRequest(
        run_key=message.identity.run_id,
        partition_key=message.identity.partition_key,
        tags={PRIORITY_TAG: message.priority, DAGSTER_PRIORITY_TAG: _DAGSTER_PRIORITY[message.priority]},
    )


def order_of(deployment: Deployment, message: Message) -> RunOrder:
    """What a message asks for. Raises `config_invalid` for an upload where no folder of uploads is known."""
    digest = message.metadata.get(DOCUMENT_DIGEST)
    return RunOrder(
        identity=message.identity,
        profile=message.profile or deployment.settings.profile,
        source_type=message.source.type,
        locator=_locator(deployment, message),
        source_sha256=message.source.sha256,
        force_recompute=message.force_recompute,
        document_digest=None if digest is None else str(digest),
    )


def _locator(deployment: Deployment, message: Message) -> str:
    """Where the workers find the video."""
    if message.source.type != "upload":
        return message.source.locator
    if deployment.settings.uploads is None:
        raise TrendFlowError("config_invalid", "The scheduler knows no folder of uploads: set TRENDFLOW_UPLOADS.")
    return str(deployment.settings.uploads / message.source.locator)


def _has_ended(level1: Level1, run_path: str) -> bool:
    row = level1.manager.document["runs"].get(run_path)
    return row is None or row["status"] in RUN_END


def _known_to_dagster(scheduler: Scheduler, instance: DagsterInstance, messages: Iterable[Message]) -> list[Message]:
    wanted = list(messages)
    keys = (message.identity.partition_key for message in wanted)
    known = latest_records(instance, scheduler.deployment.graph, keys)
    launched = {key for key, record in known.items() if not _is_stuck(record.dagster_run)}
    return [message for message in wanted if message.identity.partition_key in launched]


def _is_stuck(run: DagsterRun) -> bool:
    """Whether Dagster made a run that was asked for here and has not launched it: it does so when asked again."""
    return run.status == DagsterRunStatus.NOT_STARTED and run.tags.get(SENSOR_NAME_TAG) == TAKE_SUBMISSIONS


def _in_hand(instance: DagsterInstance) -> int:
    """Runs of submissions that Dagster has and that have not ended. Those it has not launched are expected here."""
    tags = {SENSOR_NAME_TAG: TAKE_SUBMISSIONS}
    return instance.get_runs_count(RunsFilter(job_name=PROCESS_VIDEO, statuses=_LAUNCHED, tags=tags))


def _wanted(scheduler: Scheduler, messages: list[Message]) -> list[Message]:
    """The messages but those of deleted videos: whoever submitted one did not see its deletion, nor that the message.

    Nothing may be left of it, so it leaves level 1, which has to be opened again: the others come the next time.
    """
    if not messages:
        return []
    deployment = scheduler.deployment
    deleted = tombstones(deployment)
    named = {(message.identity.platform_id, message.identity.video_id) for message in messages}
    gone = [video for video in sorted(named) if video in deleted]
    for video in gone:
        forget_text(deployment, *video)
        scheduler.desk.inbox.forget(*video)
        forget_video(deployment.states, *video, holder=this_process())
    return [] if gone else messages


def _make(deployment: Deployment, level1: Level1, messages: list[Message]) -> list[Message]:
    """Make the runs of messages; returns those that are to be launched. Others have ended, and level 1 knows it."""
    with ThreadPoolExecutor(_WORKERS) as makers:
        ends = list(makers.map(partial(_made, deployment), messages))
    made, failed = list[Message](), list[TrendFlowError]()
    for message, end in zip(messages, ends, strict=True):
        if end is None:
            made.append(message)
        elif isinstance(end, _End):
            error = end.error
            data = {} if error is None else {"error": error.message, "error_code": error.error_code}
            level1.manager.run_status(message.run_path, end.status, **data)
        else:  # it stays in line
            log.warning("the run %s cannot be made yet: %s", message.run_path, end.error_code)
            failed.append(end)
    if failed and not made:
        raise failed[0]
    return made


def _made(deployment: Deployment, message: Message) -> _End | TrendFlowError | None:
    """Make a run. Returns None, or how it ended instead, or what may have passed by the next time."""
    try:
        ended = _ended_before(deployment, message.run_path)
        if ended is None:
            _require_in_time(deployment, message)
            create_run(deployment, order_of(deployment, message))
        return ended
    except Exception as exc:  # whatever a message does to us, the others must have their turn
        error = as_typed(exc)
        if error.error_class == "transient":
            return error
        if error.error_code == "internal_error":
            places = "".join(traceback.format_tb(exc.__traceback__))
            log.error("the run %s cannot be made: %s\n%s", message.run_path, type(exc).__name__, places)
    return _refused(deployment, message, error)


def _require_in_time(deployment: Deployment, message: Message) -> None:
    if message.deadline is not None:
        now = datetime.fromisoformat(deployment.states.clock.utc())
        if datetime.fromisoformat(message.deadline) < now:
            # Repeating it would not help, so its class is that of a wish that cannot be met.
            raise TrendFlowError("input_constraint_violated", "The deadline of the run was over before its turn came.")


def _ended_before(deployment: Deployment, run_path: str) -> _End | None:
    """How a run ended before its turn: somebody accepted it early, to cancel it, or a process that died made it."""
    view = deployment.states.read_run(run_path)
    if view is None:
        return None
    if view.run["status"] in RUN_END:
        return _End(view.run["status"])
    if view.run["cancel_requested_at"] is not None:
        conclude(deployment, run_path, TrendFlowError("cancelled", "The run was cancelled."))
        return _End("cancelled")
    return None


def _refused(deployment: Deployment, message: Message, error: TrendFlowError) -> _End | TrendFlowError:
    profile = message.profile or deployment.settings.profile
    try:
        refuse(deployment, message.identity, profile, error, holder=this_process())
    except TrendFlowError as failed:
        if failed.error_class == "transient":
            return failed
        log.error("the state of the run %s is damaged: %s", message.run_path, failed.error_code)
    return _End("error", error)
