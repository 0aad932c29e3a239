"""Run identity: which ids are accepted, and that ids never collide across platforms."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import (
    IDENTITY_KEYS,
    RunIdentity,
    platform_of,
    split_partition_key,
    validate_run_id,
    validate_video_id,
)

IDS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


def make(**changes: str) -> RunIdentity:
    values = {
        "platform_id": "youtube",
        "video_id": "-dQw4w9WgXc",
        "run_id": "run-1",
        "config_hash": "0f" * 32,
        "sampling_policy_version": "sampling_v1+x.2",
        "dataprocessor_version": "unknown",
    }
    return RunIdentity(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"platform_id": "vimeo"}, "input_constraint_violated"),
        ({"video_id": "short"}, "input_constraint_violated"),
        ({"video_id": "dQw4w9WgXcQ\n"}, "input_constraint_violated"),
        ({"video_id": "../../etc/x"}, "input_constraint_violated"),
        ({"platform_id": "upload", "video_id": "dQw4w9WgXcQ"}, "input_constraint_violated"),
        ({"run_id": ""}, "input_constraint_violated"),
        ({"run_id": "a/b"}, "input_constraint_violated"),
        ({"run_id": "r" * 65}, "input_constraint_violated"),
        ({"config_hash": "0F" * 32}, "config_invalid"),
        ({"config_hash": "0f" * 31}, "config_invalid"),
        ({"sampling_policy_version": ""}, "config_invalid"),
        ({"dataprocessor_version": "1.0 beta"}, "config_invalid"),
    ],
)
def test_malformed_identities_are_refused(changes: dict[str, str], code: str) -> None:
    with pytest.raises(TrendFlowError) as caught:
        make(**changes)
    assert caught.value.error_code == code


def test_identity_carries_the_six_values_everywhere() -> None:
    identity = make()
    assert tuple(identity.as_dict()) == IDENTITY_KEYS
    assert RunIdentity.from_mapping({**identity.as_dict(), "profile": "starter"}) == identity
    assert pickle.loads(pickle.dumps(identity)) == identity
    assert identity.run_path == "youtube/-dQw4w9WgXc/run-1"
    assert identity.partition_key == "-dQw4w9WgXc/run-1"


@given(IDS)
def test_every_id_belongs_to_exactly_one_platform(video_id: str) -> None:
    accepted = []
    for platform in ("youtube", "upload"):
        try:
            validate_video_id(platform, video_id)
        except TrendFlowError:
            continue
        accepted.append(platform)
    assert accepted == [platform_of(video_id)]


@given(IDS, IDS)
def test_partition_keys_round_trip(video_id: str, run_id: str) -> None:
    assert split_partition_key(f"{video_id}/{run_id}") == (video_id, run_id)


@given(st.text(max_size=20))
def test_anything_else_is_no_run_id(text: str) -> None:
    assume(not text or not all(char.isascii() and (char.isalnum() or char in "_-") for char in text))
    with pytest.raises(TrendFlowError):
        validate_run_id(text)
    with pytest.raises(TrendFlowError):
        split_partition_key(f"video/{text}")
