"""Drafts: the items of a submission before it is decided what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.schema import SchemaRegistry
from trendflow.submission.items import minted_run_id
from trendflow.submission.lists import Entry
from trendflow.submission.message import FORCE_RECOMPUTE, Message, VideoSource, require_valid_message
from trendflow.submission.request import ProcessRequest, ProfileFacts, Profiles, message_of
from trendflow.submission.sources import Source

Draft = Message | TrendFlowError
"""The message that an item would become, or why it cannot become one."""


def draft_request(
    request: ProcessRequest, profiles: Profiles, schemas: SchemaRegistry, *, submission_id: str, user_id: str
) -> Message:
    """The message of a submission of one request. Raises as `message_of`."""
    return message_of(request, profiles, schemas, user_id=user_id, run_id=minted_run_id(submission_id, 0))


def draft_entries(
    entries: Iterable[Entry],
    profile: str,
    profiles: Profiles,
    schemas: SchemaRegistry,
    *,
    submission_id: str,
    user_id: str,
    force_recompute: bool = False,
) -> list[Draft]:
    """One draft per entry of a list, all with the same profile; a broken entry becomes its error.

    Raises `config_invalid` for the profile, which no entry could do without.
    """
    facts = profiles(profile, {})
    metadata = {FORCE_RECOMPUTE: True} if force_recompute else {}

    def draft(place: int, entry: Entry) -> Draft:
        if isinstance(entry.outcome, TrendFlowError):
            return _at(entry.place, entry.outcome)
        message = Message(
            identity=_identity(entry.outcome, entry.run_id or minted_run_id(submission_id, place), facts),
            source=VideoSource(entry.outcome.source_type, entry.outcome.locator),
            user_id=user_id,
            profile=profile,
            priority=entry.priority,
            metadata=metadata,
        )
        try:
            return require_valid_message(schemas, message)
        except TrendFlowError as error:
            return _at(entry.place, error)

    return [draft(place, entry) for place, entry in enumerate(entries)]


def _identity(source: Source, run_id: str, facts: ProfileFacts) -> RunIdentity:
    return RunIdentity(
        platform_id=source.platform_id,
        video_id=source.video_id,
        run_id=run_id,
        config_hash=facts.config_hash,
        sampling_policy_version=facts.versions["sampling_policy_version"],
        dataprocessor_version=facts.versions["dataprocessor_version"],
    )


def _at(place: str, error: TrendFlowError) -> TrendFlowError:
    """The error with the place in the list, so that a person finds the entry."""
    return TrendFlowError(error.error_code, f"{place}: {error.message}", **error.detail)
