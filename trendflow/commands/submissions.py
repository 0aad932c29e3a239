"""`trendflow submissions` and `retry`: what became of what was submitted, and the failed part once more."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from trendflow.commands.console import err, out, table
from trendflow.commands.process import prepare_dagster_home
from trendflow.commands.submission_report import print_report
from trendflow.config import Settings, load_settings
from trendflow.contracts.errors import ERROR_RULES, TrendFlowError
from trendflow.contracts.identity import split_partition_key
from trendflow.fleet.environment import is_store_of_fleet
from trendflow.submission.items import Submission, submission_day
from trendflow.submission.message import Message
from trendflow.submission.outcomes import Outcomes
from trendflow.submission.report import DECISIONS, Report, decision_of, refusal_of, submission_list, submission_report

if TYPE_CHECKING:
    from trendflow.orchestration.deployment import Deployment
    from trendflow.orchestration.submitting import OpenDesk

_LISTED = 50


def submissions(submission_id: str | None, wait: bool, as_json: bool) -> int:
    """List the latest submissions, or report one of them. Returns the exit code."""
    deployment, opened = _open()
    if submission_id is not None:
        return finish(deployment, opened, _read(opened, submission_id), wait=wait, as_json=as_json, report=True)
    not_taken = {waiting.submission_id for waiting in opened.inbox.open()}
    found = submission_list(opened.inbox.recent(_LISTED), opened.states.read_global()["runs"], not_taken)
    if as_json:
        out.print_json(json.dumps(found))
        return 0
    rows = [
        [
            row["submission_id"],
            row["accepted_at"][:16].replace("T", " "),
            str(sum(row["decisions"].values())),
            *(str(row["decisions"][name]) for name in DECISIONS),
            str(row["open_runs"]),
        ]
        for row in found["submissions"]
    ]
    counted = ["items", *DECISIONS, "open"]
    out.print(table(None, ["submission", "accepted (UTC)", *counted], rows, right=counted))
    return 0


def retry(wanted: str, wait: bool, as_json: bool) -> int:
    """Submit again what failed: the runs of a submission that ended with a transient error, or one run.

    Returns the exit code. Raises `input_constraint_violated` when there is nothing of the kind.
    """
    deployment, opened = _open()
    from trendflow.orchestration.waiting_text import sharing
    from trendflow.submission.retry import retry_drafts, retry_id

    failed = [_failed_run(deployment, opened, wanted)] if "/" in wanted else _failed(deployment, opened, wanted)
    if not failed:
        raise TrendFlowError("input_constraint_violated", "No run of this submission ended with a transient error.")
    now = opened.states.clock.utc()
    submission_id = retry_id(now[:10].replace("-", ""), failed)
    submission = opened.inbox.get(submission_id)
    if submission is None:
        with sharing(deployment.settings) as share:
            drafts = retry_drafts(failed, opened.profiles, submission_id, share)
        submission = opened.desk.submit(submission_id, failed[0].user_id, drafts)
    if not as_json:
        out.print(f"submission {submission_id}: {decisions_line(submission)}", highlight=False, soft_wrap=True)
        say_who_takes_them(submission, deployment.settings)
    return finish(deployment, opened, submission, wait=wait, as_json=as_json)


def finish(
    deployment: Deployment,
    opened: OpenDesk,
    submission: Submission,
    *,
    wait: bool,
    as_json: bool,
    report: bool = False,
) -> int:
    """What follows a submission: the wait for its runs, its report, and the exit code.

    The report is printed when it is asked for, after a wait and as JSON. Raises the first error when no item has, or
    can get, a result.
    """
    outcomes = _outcomes(deployment, opened)
    if wait:
        from trendflow.commands.watch import watch

        watch(outcomes, submission)
    if wait or as_json or report:
        made = _report(deployment, outcomes, submission)
        if as_json:
            out.print_json(json.dumps(made))
        else:
            print_report(made)
        bad = [item for item in made["items"] if item["verdict"] == "explained"]
        if not report and len(bad) == len(made["items"]):
            raise TrendFlowError(bad[0]["error_code"] or "internal_error", bad[0]["error"] or "No run succeeded.")
        return 0
    refusals = [refusal_of(item) for item in submission.items]
    if all(refusals) and refusals[0] is not None:
        raise TrendFlowError(refusals[0].error_code, refusals[0].error)
    return 0


def say_who_takes_them(submission: Submission, settings: Settings) -> None:
    """Say what happens next with the new runs of a submission; above all when nobody is there to take them.

    Whoever starts a scheduler then has to start it on the store that holds the submission: a fleet has one of its own.
    """
    if not submission.messages:
        return
    from trendflow.orchestration.daemon_beat import scheduler_is_seen

    try:
        seen = scheduler_is_seen()
    except TrendFlowError as error:  # the submission stands, whatever is known of the scheduler
        err.print(f"whether a scheduler runs is not known: {error.message}", highlight=False, markup=False)
        return
    if seen:
        out.print(f"follow it with: trendflow submissions {submission.submission_id}", highlight=False, soft_wrap=True)
    else:
        who = (
            "until 'trendflow up' starts one"
            if is_store_of_fleet(settings)
            else "in this store until one works on it, such as that of 'trendflow ui'; a fleet has a store of its own"
        )
        err.print(f"no scheduler is seen: the runs wait {who}", highlight=False, soft_wrap=True)


def decisions_line(submission: Submission) -> str:
    """How many items were decided how."""
    counted = Counter(decision_of(item) for item in submission.items)
    return ", ".join(f"{counted[name]} {name}" for name in DECISIONS if counted[name])


def _open() -> tuple[Deployment, OpenDesk]:
    settings = load_settings()
    prepare_dagster_home(settings)
    from trendflow.orchestration.deployment import open_deployment
    from trendflow.orchestration.submitting import open_desk

    deployment = open_deployment(settings)
    return deployment, open_desk(deployment)


def _outcomes(deployment: Deployment, opened: OpenDesk) -> Outcomes:
    from trendflow.orchestration.submitting import required_components

    return Outcomes(
        opened.store, opened.states, opened.inbox, lambda profile: required_components(deployment.graph, profile)
    )


def _read(opened: OpenDesk, submission_id: str) -> Submission:
    submission_day(submission_id)
    found = opened.inbox.get(submission_id)
    if found is None:
        raise TrendFlowError("dependency_missing", f"There is no submission {submission_id} here.", kind="submission")
    return found


def _failed(deployment: Deployment, opened: OpenDesk, submission_id: str) -> list[Message]:
    """Messages of the new runs that ended with a transient error."""
    submission = _read(opened, submission_id)
    outcomes = _outcomes(deployment, opened).of(submission)
    return [
        message
        for place, message in submission.messages
        if (outcome := outcomes[place]) is not None
        and outcome.status == "error"
        and outcome.error_code is not None
        and ERROR_RULES[outcome.error_code].error_class == "transient"
    ]


def _failed_run(deployment: Deployment, opened: OpenDesk, key: str) -> Message:
    """The message of one run that ended without success, whatever its error was."""
    _, run_id = split_partition_key(key)
    message = opened.inbox.message_of(run_id)
    if message is None or message.identity.partition_key != key:
        raise TrendFlowError("dependency_missing", f"The run {key} was not submitted here.", kind="submission")
    outcome = _outcomes(deployment, opened).of_run(message.run_path)
    if outcome.status not in ("error", "cancelled"):
        raise TrendFlowError("input_constraint_violated", f"The run {key} did not fail.")
    return message


def _report(deployment: Deployment, outcomes: Outcomes, submission: Submission) -> Report:
    from trendflow.orchestration.queue.dead_letters import dead_letters

    with err.status("reading the runs"):
        return submission_report(submission, outcomes.of(submission), dead_letters(deployment.settings))
