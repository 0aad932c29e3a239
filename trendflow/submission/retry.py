"""Runs that failed, once more: new runs of the same videos, which reuse what the failed ones had finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from trendflow.contracts.canonical import digest_of
from trendflow.contracts.errors import TrendFlowError
from trendflow.submission.drafts import Draft
from trendflow.submission.items import minted_run_id
from trendflow.submission.message import DOCUMENT_DIGEST, Message
from trendflow.submission.request import Profiles


def retry_id(day: str, failed: Sequence[Message]) -> str:
    """The id under which these runs are submitted again on a day (`yyyymmdd`): always the same one, so once."""
    return f"{day}-retry-{digest_of(sorted(message.run_path for message in failed))[:16]}"


ShareText = Callable[[str, str], bool]
"""Keeps the text of a document digest for a run path too; False when it is gone."""


def retry_drafts(
    failed: Sequence[Message], profiles: Profiles, submission_id: str, share_text: ShareText
) -> list[Draft]:
    """The messages of new runs; an error where the run cannot be made again as it was."""

    def draft(place: int, message: Message) -> Draft:
        try:
            return _again(message, profiles, minted_run_id(submission_id, place), share_text)
        except TrendFlowError as error:
            return error

    return [draft(place, message) for place, message in enumerate(failed)]


def _again(message: Message, profiles: Profiles, run_id: str, share_text: ShareText) -> Message:
    facts = profiles(message.profile or "", message.profile_config)
    identity = message.identity
    then = (identity.config_hash, identity.sampling_policy_version, identity.dataprocessor_version)
    now = facts.config_hash, facts.versions["sampling_policy_version"], facts.versions["dataprocessor_version"]
    if then != now:
        raise TrendFlowError(
            "config_invalid", "The profile or the release changed since the run failed; submit the video again."
        )
    again = replace(message, identity=replace(identity, run_id=run_id), retry_count=message.retry_count + 1)
    digest = message.metadata.get(DOCUMENT_DIGEST)
    if digest is not None and not share_text(digest, again.run_path):
        raise TrendFlowError(
            "dependency_missing",
            "The run was submitted with a document that is not kept any more; submit the video again together with it.",
            kind="document",
        )
    return again
