"""`trendflow submit`: videos into the queue of the deployment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trendflow.commands.console import err, out, table
from trendflow.commands.process import prepare_dagster_home
from trendflow.commands.submissions import decisions_line, finish, say_who_takes_them
from trendflow.config import load_settings
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import partition_key_of
from trendflow.submission.items import Submission, new_submission_id, submission_day
from trendflow.submission.lists import MAX_ENTRIES, MAX_LIST_BYTES, Entry, ListForm, parse_list
from trendflow.submission.message import Priority
from trendflow.submission.outcomes import answering_run
from trendflow.submission.report import decision_of, refusal_of
from trendflow.submission.sources import existing_path, parse_source

if TYPE_CHECKING:
    from trendflow.orchestration.deployment import Deployment
    from trendflow.orchestration.submitting import OpenDesk

USER = "command-line"
"""Whom submissions of the command line belong to, whoever has typed it: the same one again gets the same answer."""
_FORMS: dict[str, ListForm] = {".csv": "csv", ".json": "json"}
_SHOWN = 50


@dataclass(frozen=True)
class Order:
    """What the user asked for. `sources`, `listed` and `channel` are taken together, in this order."""

    sources: Sequence[str] = ()
    listed: str | None = None
    channel: str | None = None
    profile: str | None = None
    priority: Priority = "normal"
    force: bool = False
    run_id: str | None = None
    submission_id: str | None = None
    wait: bool = False
    as_json: bool = False


def submit(order: Order) -> int:
    """Submit videos and print what became of each. Returns the exit code.

    Raises the error of the first item when nothing could be taken, and what the desk raises.
    """
    settings = load_settings()
    if order.submission_id is not None:
        submission_day(order.submission_id)  # refuses a malformed one before anything is read
    entries = _entries(order)
    prepare_dagster_home(settings)
    from trendflow.orchestration.deployment import open_deployment
    from trendflow.orchestration.submitting import open_desk
    from trendflow.submission.drafts import draft_entries

    deployment = open_deployment(settings)
    profile = order.profile or settings.profile
    checked = list(_checked(deployment, profile, entries))
    opened = open_desk(deployment)
    submission_id = order.submission_id or new_submission_id(opened.states.clock.utc())
    drafts = draft_entries(
        checked,
        profile,
        opened.profiles,
        deployment.schemas,
        submission_id=submission_id,
        user_id=USER,
        force_recompute=order.force,
    )
    submission = opened.desk.submit(submission_id, USER, drafts)
    if not order.as_json:
        _print_items(opened, submission, [_name(entry) for entry in entries])
        say_who_takes_them(submission, settings)
    return finish(deployment, opened, submission, wait=order.wait, as_json=order.as_json)


def _entries(order: Order) -> list[Entry]:
    """Everything that was named. Raises `config_invalid` for nothing and for contradictions."""
    entries = [_argument(place, source, order) for place, source in enumerate(order.sources, start=1)]
    if order.listed is not None:
        form = _FORMS.get(Path(order.listed).suffix.lower(), "lines")
        entries += parse_list(_read(order.listed), form, local_files=True, priority=order.priority)
    if order.channel is not None:
        from trendflow.submission.channel import channel_entries

        with err.status("reading the channel"):
            found = channel_entries(order.channel)
        entries += [replace(entry, priority=order.priority) for entry in found]
    if not entries:
        raise TrendFlowError("config_invalid", "Name at least one video, --list or --channel.")
    if len(entries) > MAX_ENTRIES:
        raise TrendFlowError("input_constraint_violated", f"A submission holds at most {MAX_ENTRIES} videos.")
    if order.run_id is not None:
        if len(entries) > 1:
            raise TrendFlowError("config_invalid", "--run-id is that of one run; a list states its own in 'run_id'.")
        entries = [replace(entry, run_id=order.run_id) for entry in entries]
    return entries


def _argument(place: int, source: str, order: Order) -> Entry:
    try:
        return Entry(f"argument {place}", parse_source(source), priority=order.priority)
    except TrendFlowError as error:
        return Entry(f"argument {place}", error)


def _read(listed: str) -> bytes:
    with existing_path(listed) as path, path.open("rb") as file:
        return file.read(MAX_LIST_BYTES + 1)  # one more than is allowed: enough to be refused


def _checked(deployment: Deployment, profile: str, entries: Sequence[Entry]) -> Iterator[Entry]:
    """The entries, those with an error whose files are too short or too long: hopeless ones become no runs."""
    from trendflow.orchestration.runs import resolve_profile
    from trendflow.orchestration.segmenter_step import refuse_wrong_duration

    # Weights that are not in order would fail every component; better before there are runs than after. Devices are
    # those of the workers, which may be other hosts.
    resolve_profile(deployment, profile, executed_here=False)
    with err.status("looking at the files"):
        for entry in entries:
            source = entry.outcome
            if isinstance(source, TrendFlowError) or source.source_type != "local_path":
                yield entry
                continue
            try:
                refuse_wrong_duration(deployment, profile, Path(source.locator))
                yield entry
            except TrendFlowError as error:
                if error.error_class == "transient":
                    raise
                yield replace(entry, outcome=error)


def _name(entry: Entry) -> str:
    """What a person recognises an entry by."""
    if isinstance(entry.outcome, TrendFlowError):
        return entry.place
    source = entry.outcome
    return Path(source.locator).name if source.source_type == "local_path" else source.locator


def _print_items(opened: OpenDesk, submission: Submission, names: Sequence[str]) -> None:
    """One row per item; of a long submission only what was not taken, and the first ones."""
    rows = []
    for place, (name, item) in enumerate(zip(names, submission.items, strict=True)):
        refusal, path = refusal_of(item), answering_run(opened.inbox, item)
        if refusal is None and place >= _SHOWN:
            continue
        why = "" if refusal is None else f"{refusal.error_code}: {refusal.error.removeprefix(f'{name}: ')}"
        rows.append([str(place + 1), name, decision_of(item), why or ("" if path is None else partition_key_of(path))])
    out.print(table(None, ["", "item", "decision", "run or reason"], rows, right=("",)), markup=False)
    if len(rows) < len(names):
        out.print(f"… and {len(names) - len(rows)} more", highlight=False)
    out.print(f"submission {submission.submission_id}: {decisions_line(submission)}", highlight=False, soft_wrap=True)
