"""`ProcessRequest`: what a caller may say, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from trendflow.contracts.canonical import canonical_json, digest_of
from trendflow.contracts.errors import TrendFlowError
from trendflow.submission.message import Message
from trendflow.submission.request import ProcessRequest, ProfileFacts, message_of, parse_request
from trendflow_tests.state.runs import SCHEMAS

CANARY = "Zebra crossing at noon"
FIELDS = {
    "run_id",
    "video_id",
    "platform_id",
    "video_url",
    "upload_id",
    "config_hash",
    "profile",
    "profile_config",
    "profile_version",
    "feature_schema_version",
    "pipeline_version",
    "sampling_policy_version",
    "dataprocessor_version",
    "analysis_fps",
    "analysis_width",
    "analysis_height",
    "chunk_size",
    "run_audio",
    "run_text",
    "priority",
    "callback_url",
    "document",
    "snapshot",
    "metadata",
}
BODY: dict[str, Any] = {
    "video_id": "abcdefghijk",
    "platform_id": "youtube",
    "video_url": "https://m.youtube.com/watch?list=x&v=abcdefghijk&t=7",
    "profile": "baseline",
    "profile_version": "p1",
    "feature_schema_version": "f1",
    "pipeline_version": "2.0.0",
    "sampling_policy_version": "s1",
    "dataprocessor_version": "2.0.0",
}


def profiles(name: str, overrides: Mapping[str, Any]) -> ProfileFacts:
    if name != "baseline":
        raise TrendFlowError("config_invalid", "No such profile.")
    versions = {key: BODY[key] for key in BODY if key.endswith("_version")}
    return ProfileFacts(digest_of({"profile": name, **overrides}), versions)


def made(**changes: Any) -> Message:
    request = parse_request(json.dumps({**BODY, **changes}).encode())
    return message_of(request, profiles, SCHEMAS, user_id="user-1", run_id="minted")


def refused(**changes: Any) -> TrendFlowError:
    with pytest.raises(TrendFlowError) as caught:
        made(**changes)
    return caught.value


def test_the_fields_are_those_of_the_contract() -> None:
    assert set(ProcessRequest.model_fields) == FIELDS


def test_a_request_becomes_a_message() -> None:
    message = made(priority="high", callback_url="https://example.org/hook")
    assert message.identity.as_dict() == {
        "platform_id": "youtube",
        "video_id": "abcdefghijk",
        "run_id": "minted",
        "config_hash": digest_of({"profile": "baseline"}),
        "sampling_policy_version": "s1",
        "dataprocessor_version": "2.0.0",
    }
    assert message.source.locator == "https://www.youtube.com/watch?v=abcdefghijk"
    assert (message.priority, message.user_id, message.profile) == ("high", "user-1", "baseline")
    assert made(run_id="mine").identity.run_id == "mine"
    upload = made(platform_id="upload", video_id="holiday", video_url=None, upload_id="u-1")
    assert (upload.source.type, upload.source.locator) == ("upload", "u-1")


def test_the_config_hash_is_computed_here_and_compared() -> None:
    right = digest_of({"profile": "baseline"})
    assert made(config_hash=right).identity.config_hash == right
    assert refused(config_hash="0" * 64).error_code == "config_invalid"
    changed = made(analysis_fps=5.0, run_text=False, profile_config={"core_clip.samples": 7})
    wanted = {"analysis_fps": 5.0, "run_text": False, "core_clip.samples": 7}
    assert changed.profile_config == wanted
    assert changed.identity.config_hash == digest_of({"profile": "baseline", **wanted})


@pytest.mark.parametrize("name", [name for name in BODY if name.endswith("_version")])
def test_another_version_is_another_deployment(name: str) -> None:
    error = refused(**{name: "other"})
    assert (error.error_code, error.detail["field"]) == ("config_invalid", name)
    assert error.message == f"The {name} of the deployment is {BODY[name]}, not what the request states."


@pytest.mark.parametrize(
    "changes",
    [
        {"video_path": "/etc/passwd"},
        {"locator": "/etc/passwd"},
        {"video_url": "/etc/passwd"},
        {"video_url": "file:///etc/passwd"},
        {"video_url": "https://example.org/v.mp4"},
        {"video_url": None},
        {"upload_id": "u-1"},
        {"video_url": None, "upload_id": "../u"},
        {"video_url": None, "upload_id": "u-1"},  # on the platform youtube
        {"video_id": "lmnopqrstuv"},  # not the one of the URL
        {"video_id": "x" * 65},
        {"run_id": "a/b"},
        {"priority": "urgent"},
        {"run_audio": "yes"},
        {"analysis_fps": 0},
        {"chunk_size": 2.5},
        {"metadata": {"document_digest": "f" * 64}},
        {"metadata": {"title": "a title"}},
        {"callback_url": "http://example.org/"},
        {"document": {"transcript": "x"}},
        {"snapshot": {"observed_at": "2026-01-02T00:00:00Z", "views": -1}},
    ],
)
def test_what_callers_may_not_say(changes: dict[str, Any]) -> None:
    error = refused(**changes)
    assert error.error_code == "input_constraint_violated"
    assert "passwd" not in f"{error} {error.detail}"


def test_text_travels_as_a_digest_only() -> None:
    body = {**BODY, "document": {"title": CANARY, "description": CANARY, "tags": [CANARY], "language": "en"}}
    request = parse_request(json.dumps(body).encode())
    message = message_of(request, profiles, SCHEMAS, user_id="user-1", run_id="minted")
    document = request.video_document
    assert document is not None
    assert (document.title, document.tags) == (CANARY, (CANARY,))
    assert message.metadata == {"document_digest": document.digest}
    assert CANARY.encode() not in canonical_json(message.as_dict())
    assert CANARY not in repr(request.document)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", json.dumps({**BODY, "document": {"title": 7}}).encode()])
def test_a_body_that_is_no_request(body: bytes) -> None:
    with pytest.raises(TrendFlowError, match="The request is not valid at ") as caught:
        parse_request(body)
    assert caught.value.__cause__ is None


def test_a_refusal_quotes_no_text() -> None:
    error = refused(document={"title": CANARY * 100})
    assert error.detail == {"fields": ["document.title"]}
    assert CANARY not in str(error)
