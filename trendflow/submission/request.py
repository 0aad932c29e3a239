"""`ProcessRequest`: what a caller of the service may ask for, and the queue message it becomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity, validate_run_id
from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.video_document import VideoDocument
from trendflow.contracts.vocab import PlatformId
from trendflow.submission.message import DOCUMENT_DIGEST, Message, Priority, VideoSource, require_valid_message
from trendflow.submission.sources import parse_url

VERSIONS = (
    "profile_version",
    "feature_schema_version",
    "pipeline_version",
    "sampling_policy_version",
    "dataprocessor_version",
)
"""What a caller states about the deployment; each must be what the deployment has."""

_Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9._+-]{1,64}$")]
_Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
_UtcTime = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z$")]
_Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Model(BaseModel):
    # Strict: "true" is no truth value and "5" no number. Values of wrong fields are never quoted back.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class RequestDocument(_Model):
    """Text of the video. It is never stored: what travels is its digest."""

    title: str | None = Field(None, max_length=1_000, repr=False)
    description: str | None = Field(None, max_length=20_000, repr=False)
    tags: list[Annotated[str, Field(max_length=200)]] = Field(default_factory=list, max_length=200, repr=False)
    language: str | None = Field(None, pattern=r"^[A-Za-z0-9-]{1,35}$")
    published_at: _UtcTime | None = None
    channel_id: _Id | None = None


class RequestSnapshot(_Model):
    """Public counters of the video at one moment (UTC)."""

    observed_at: _UtcTime
    views: _Count | None = None
    likes: _Count | None = None
    comments: _Count | None = None
    channel_subscribers: _Count | None = None
    channel_views: _Count | None = None
    channel_videos: _Count | None = None


class ProcessRequest(_Model):
    """One video to process. A source is a platform's URL or the id of an upload: paths cannot be stated.

    Of the metadata, `force_recompute: true` has a meaning here: nothing that exists is reused.
    """

    run_id: _Id | None = None
    video_id: _Id
    platform_id: PlatformId
    video_url: str | None = Field(None, max_length=4096)
    upload_id: _Id | None = None
    config_hash: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    profile: _Version
    profile_config: dict[str, JsonValue] | None = None
    profile_version: _Version
    feature_schema_version: _Version
    pipeline_version: _Version
    sampling_policy_version: _Version
    dataprocessor_version: _Version
    analysis_fps: float | None = Field(None, gt=0, le=240, allow_inf_nan=False)
    analysis_width: int | None = Field(None, ge=16, le=1920)
    analysis_height: int | None = Field(None, ge=16, le=1920)
    chunk_size: int | None = Field(None, ge=1, le=4096)
    run_audio: bool = True
    run_text: bool = True
    priority: Priority | None = None
    callback_url: str | None = Field(None, max_length=2048)
    document: RequestDocument | None = None
    snapshot: RequestSnapshot | None = None
    metadata: dict[str, JsonValue] | None = None

    @property
    def overrides(self) -> dict[str, Any]:
        """What the caller wants otherwise than the profile says: all of it decides results."""
        named = {name: getattr(self, name) for name in ("analysis_fps", "analysis_width", "analysis_height")}
        named["chunk_size"] = self.chunk_size
        wanted = {name: value for name, value in named.items() if value is not None}
        switched_off = {name: False for name in ("run_audio", "run_text") if not getattr(self, name)}
        return {**(self.profile_config or {}), **wanted, **switched_off}

    @property
    def video_document(self) -> VideoDocument | None:
        """The text as components read it; the caller of this library hands it on, in memory."""
        if self.document is None:
            return None
        text = self.document
        return VideoDocument(text.title, text.description, tuple(text.tags), text.language)


@dataclass(frozen=True)
class ProfileFacts:
    """A profile as the deployment has it, overrides applied. `versions` holds those named in `VERSIONS`."""

    config_hash: str
    versions: Mapping[str, str]


Profiles = Callable[[str, Mapping[str, Any]], ProfileFacts]
"""Facts of a profile, by name and overrides; raises `config_invalid` for what the deployment does not know or allow."""


def parse_request(body: bytes) -> ProcessRequest:
    """A request from its JSON. Raises `input_constraint_violated` naming the fields, never what they hold."""
    try:
        return ProcessRequest.model_validate_json(body)
    except ValidationError as exc:
        # The names of unknown fields are the caller's words too, so they are cut and few are listed.
        fields = [".".join(str(part)[:64] for part in error["loc"]) or "body" for error in exc.errors()[:10]]
        # Without the cause: it holds the whole request.
        raise TrendFlowError(
            "input_constraint_violated", f"The request is not valid at {fields[0]}.", fields=fields
        ) from None


def message_of(
    request: ProcessRequest, profiles: Profiles, schemas: SchemaRegistry, *, user_id: str, run_id: str
) -> Message:
    """The queue message of a request. `run_id` serves where the request names none.

    Raises `input_constraint_violated` for ids, source, callback and metadata outside the contract, `config_invalid`
    where the caller states another configuration or version than the deployment has.
    """
    facts = profiles(request.profile, request.overrides)
    for name in VERSIONS:
        if getattr(request, name) != facts.versions[name]:
            raise TrendFlowError(
                "config_invalid",
                f"The {name} of the deployment is {facts.versions[name]}, not what the request states.",
                field=name,
            )
    if request.config_hash not in (None, facts.config_hash):
        raise TrendFlowError(
            "config_invalid", "The config_hash of the request is not that of the profile.", field="config_hash"
        )
    chosen = request.run_id or run_id
    validate_run_id(chosen)
    identity = RunIdentity(
        platform_id=request.platform_id,
        video_id=request.video_id,
        run_id=chosen,
        config_hash=facts.config_hash,
        sampling_policy_version=request.sampling_policy_version,
        dataprocessor_version=request.dataprocessor_version,
    )
    message = Message(
        identity=identity,
        source=_source(request),
        user_id=user_id,
        profile=request.profile,
        profile_config=request.overrides,
        priority=request.priority or "normal",
        callback_url=request.callback_url,
        metadata=_metadata(request),
    )
    return require_valid_message(schemas, message)


def _source(request: ProcessRequest) -> VideoSource:
    if (request.video_url is None) == (request.upload_id is None):
        raise _refused("A request names either a video_url or an upload_id.", "video_url")
    if request.upload_id is not None:
        if request.platform_id != "upload":
            raise _refused("An upload belongs to the platform 'upload'.", "platform_id")
        return VideoSource("upload", request.upload_id)
    found = parse_url(str(request.video_url))
    if (found.platform_id, found.video_id) != (request.platform_id, request.video_id):
        raise _refused("The video_url is not that of this platform_id and video_id.", "video_url")
    return VideoSource("youtube_url", found.locator)


def _metadata(request: ProcessRequest) -> dict[str, Any]:
    metadata = dict(request.metadata or {})
    if DOCUMENT_DIGEST in metadata:
        raise _refused(f"The metadata entry {DOCUMENT_DIGEST!r} is reserved.", "metadata")
    document = request.video_document
    return metadata if document is None else {**metadata, DOCUMENT_DIGEST: document.digest}


def _refused(message: str, field: str) -> TrendFlowError:
    return TrendFlowError("input_constraint_violated", message, field=field)
