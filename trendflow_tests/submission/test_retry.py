"""Messages of runs that are submitted again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.submission.items import minted_run_id
from trendflow.submission.message import DOCUMENT_DIGEST, Message
from trendflow.submission.request import ProfileFacts
from trendflow.submission.retry import retry_drafts, retry_id
from trendflow_tests.submission.desks import HASH, draft, submission_id

VERSIONS = {"sampling_policy_version": "s1", "dataprocessor_version": "0.1.0"}
AGAIN = submission_id("again")


def profiles(name: str, overrides: Mapping[str, Any]) -> ProfileFacts:
    assert (name, dict(overrides)) == ("starter", {})
    return ProfileFacts(HASH, VERSIONS)


def nothing_shared(digest: str, run_path: str) -> bool:
    raise AssertionError("there is no text")


def test_a_retry_is_the_same_video_in_a_run_of_its_own() -> None:
    failed = draft("a", 3, 1, priority="low")
    (again,) = retry_drafts([failed], profiles, AGAIN, nothing_shared)
    run_id = minted_run_id(AGAIN, 0)
    assert again == replace(failed, identity=replace(failed.identity, run_id=run_id), retry_count=1)


def test_the_id_names_what_failed_in_whatever_order() -> None:
    first, second = draft("a", 0, 1), draft("a", 1, 2)
    assert retry_id("20260102", [first, second]) == retry_id("20260102", [second, first])
    assert retry_id("20260102", [first]) != retry_id("20260102", [first, second])


@pytest.mark.parametrize("changed", [{"config_hash": "c" * 64}, {"dataprocessor_version": "0.0.9"}])
def test_what_would_be_another_run_today_is_refused(changed: dict[str, str]) -> None:
    failed = draft("a", 0, 1)
    old = replace(failed, identity=replace(failed.identity, **changed))
    (refused,) = retry_drafts([old], profiles, AGAIN, nothing_shared)
    assert isinstance(refused, TrendFlowError)
    assert refused.error_code == "config_invalid"


@pytest.mark.parametrize("kept", [True, False])
def test_a_text_is_needed_again(kept: bool) -> None:
    failed = draft("a", 0, 1, metadata={DOCUMENT_DIGEST: "d" * 64})
    shared = []

    def share(digest: str, run_path: str) -> bool:
        shared.append((digest, run_path))
        return kept

    (again,) = retry_drafts([failed], profiles, AGAIN, share)
    assert shared == [("d" * 64, f"{failed.run_path.rpartition('/')[0]}/{minted_run_id(AGAIN, 0)}")]
    if kept:
        assert isinstance(again, Message)
        assert again.metadata == failed.metadata
    else:
        assert isinstance(again, TrendFlowError)
        assert again.error_code == "dependency_missing"
