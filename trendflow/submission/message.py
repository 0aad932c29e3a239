"""The queue message (`queue_message_v1`): everything a worker needs to execute one run, and nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.contracts.schema import SchemaRegistry, validate_document

MESSAGE_SCHEMA = "queue_message_v1"

Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""From the most urgent to the least."""

FORCE_RECOMPUTE = "force_recompute"
"""Entry of the metadata: true when neither runs nor results may be reused."""
DOCUMENT_DIGEST = "document_digest"
"""Entry of the metadata: digest of the video's text, which itself may not be stored."""

SourceType = Literal["youtube_url", "upload", "local_path"]


@dataclass(frozen=True)
class VideoSource:
    """Where the video is. `locator`: a URL, the id of an upload, or an absolute path."""

    type: SourceType
    locator: str
    sha256: str | None = None


@dataclass(frozen=True)
class Message:
    """One run that waits. `deadline` is UTC; the optional maps hold names and single values, no text."""

    identity: RunIdentity
    source: VideoSource
    user_id: str
    profile: str | None = None
    profile_config: Mapping[str, Any] = field(default_factory=dict)
    priority: Priority = "normal"
    callback_url: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    deadline: str | None = None
    retry_count: int = 0

    @property
    def run_path(self) -> str:
        return self.identity.run_path

    @property
    def force_recompute(self) -> bool:
        """Whether the metadata asks for it; the contract has no field of its own."""
        return self.metadata.get(FORCE_RECOMPUTE) is True

    def as_dict(self) -> dict[str, Any]:
        """The message as JSON; what is absent is left out."""
        source = {"type": self.source.type, "locator": self.source.locator, "sha256": self.source.sha256}
        optional = {
            "profile": self.profile,
            "profile_config": dict(self.profile_config) or None,
            "callback_url": self.callback_url,
            "metadata": dict(self.metadata) or None,
            "deadline": self.deadline,
        }
        return {
            **self.identity.as_dict(),
            "video_source": _present(source),
            "user_id": self.user_id,
            **_present(optional),
            "priority": self.priority,
            "retry_count": self.retry_count,
        }


def parse_message(schemas: SchemaRegistry, document: Any) -> Message:
    """A message from its JSON. Raises `input_constraint_violated` naming the place of what breaks the contract."""
    problems = validate_document(schemas, MESSAGE_SCHEMA, document)
    if problems:
        raise TrendFlowError("input_constraint_violated", f"The queue message breaks its contract: {problems[0]}")
    require_platform(document)
    return read_message(document)


def require_platform(document: Mapping[str, Any]) -> None:
    """What the schema of a message cannot say. Raises `input_constraint_violated`."""
    if (document["video_source"]["type"] == "youtube_url") != (document["platform_id"] == "youtube"):
        raise TrendFlowError("input_constraint_violated", "The video source is not of the message's platform.")


def read_message(document: dict[str, Any]) -> Message:
    """A message from JSON that was validated before."""
    source = document["video_source"]
    return Message(
        identity=RunIdentity.from_mapping(document),
        source=VideoSource(source["type"], source["locator"], source.get("sha256")),
        user_id=document["user_id"],
        profile=document.get("profile"),
        profile_config=document.get("profile_config", {}),
        priority=document.get("priority", "normal"),
        callback_url=document.get("callback_url"),
        metadata=document.get("metadata", {}),
        deadline=document.get("deadline"),
        retry_count=document.get("retry_count", 0),
    )


def require_valid_message(schemas: SchemaRegistry, message: Message) -> Message:
    """The message itself. Raises as `parse_message`."""
    parse_message(schemas, message.as_dict())
    return message


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
