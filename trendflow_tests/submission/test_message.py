"""The queue message against the table of its contract."""

from __future__ import annotations

from typing import Any

import pytest

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.schema import validate_document
from trendflow.submission.message import Message, parse_message
from trendflow_tests.state.runs import SCHEMAS

REQUIRED = (
    "run_id",
    "video_id",
    "platform_id",
    "config_hash",
    "sampling_policy_version",
    "dataprocessor_version",
    "video_source",
    "user_id",
)
OPTIONAL: dict[str, Any] = {
    "profile": "starter",
    "profile_config": {"analysis_fps": 12.5, "text.max_tokens": 4, "run_audio": False},
    "priority": "low",
    "callback_url": "https://example.org/hooks/7",
    "metadata": {"campaign": "a-7", "round": 3, "paid": True, "note": None},
    "deadline": "2026-01-02T03:04:05.678Z",
    "retry_count": 2,
}
LEAST: dict[str, Any] = {
    "run_id": "run-1",
    "video_id": "abcdefghijk",
    "platform_id": "youtube",
    "config_hash": "0" * 64,
    "sampling_policy_version": "s1",
    "dataprocessor_version": "1.0.0",
    "video_source": {"type": "youtube_url", "locator": "https://youtu.be/abcdefghijk"},
    "user_id": "user-1",
}


def refused(**changes: Any) -> str:
    with pytest.raises(TrendFlowError) as caught:
        parse_message(SCHEMAS, {**LEAST, **changes})
    assert caught.value.error_class == "contract"
    return str(caught.value)


def test_the_least_message_is_enough() -> None:
    message = parse_message(SCHEMAS, LEAST)
    assert (message.priority, message.retry_count) == ("normal", 0)
    assert message.run_path == "youtube/abcdefghijk/run-1"


@pytest.mark.parametrize("name", REQUIRED)
def test_nothing_required_may_be_missing(name: str) -> None:
    assert validate_document(SCHEMAS, "queue_message_v1", LEAST) == []
    assert validate_document(SCHEMAS, "queue_message_v1", {key: LEAST[key] for key in REQUIRED if key != name})


def test_the_fields_are_those_of_the_contract() -> None:
    assert SCHEMAS.documents["queue_message_v1"]["properties"].keys() == {*REQUIRED, *OPTIONAL}


def test_a_full_message_survives_the_queue() -> None:
    source = {"type": "youtube_url", "locator": "https://youtu.be/abcdefghijk", "sha256": "f" * 64}
    full = {**LEAST, **OPTIONAL, "video_source": source}
    assert parse_message(SCHEMAS, full).as_dict() == full
    message = parse_message(SCHEMAS, LEAST)
    assert parse_message(SCHEMAS, message.as_dict()) == message


@pytest.mark.parametrize(
    "changes",
    [
        {"api_key": "x"},
        {"metadata": {"api_key": "x"}},
        {"metadata": {"access_token": "x"}},
        {"metadata": {"password": "x"}},
        {"metadata": {"client_secret": "x"}},
        {"callback_url": "https://user:word@example.org/"},
        {"callback_url": "https://example.org/?key=word"},
        {"callback_url": "https://example.org/#word"},
        {"video_source": {"type": "youtube_url", "locator": "https://user:word@youtu.be/abcdefghijk"}},
    ],
)
def test_no_place_for_secrets(changes: dict[str, Any]) -> None:
    assert "word" not in refused(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"metadata": {"title": "a title of a video"}},
        {"metadata": {"note": "первая"}},
        {"metadata": {"long": "x" * 129}},
        {"metadata": {"nested": {"text": "x"}}},
        {"metadata": {"list": ["x"]}},
        {"description": "a text"},
    ],
)
def test_no_place_for_text(changes: dict[str, Any]) -> None:
    assert "title of" not in refused(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"priority": "urgent"},
        {"callback_url": "http://example.org/"},
        {"deadline": "tomorrow"},
        {"retry_count": -1},
        {"video_id": "../../etc"},
        {"video_id": "short"},
        {"config_hash": "A" * 64},
        {"platform_id": "vimeo"},
        {"user_id": ""},
        {"video_source": {"type": "local_path", "locator": "etc/passwd"}},
        {"video_source": {"type": "upload", "locator": "../x"}},
        {"video_source": {"type": "local_path", "locator": "/a/b.mp4"}},  # of the platform `upload`
    ],
)
def test_what_breaks_the_contract_is_refused(changes: dict[str, Any]) -> None:
    refused(**changes)


def test_a_local_file_is_an_upload() -> None:
    source = {"type": "local_path", "locator": "/a/b c.mp4"}
    message = parse_message(
        SCHEMAS, {**LEAST, "platform_id": "upload", "video_id": "b-0123456789ab", "video_source": source}
    )
    assert isinstance(message, Message)
    assert message.source.locator == "/a/b c.mp4"
