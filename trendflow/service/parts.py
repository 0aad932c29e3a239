"""What the service stands on: everything that a deployment decides."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from trendflow.contracts.schema import SchemaRegistry
from trendflow.contracts.video_document import VideoDocument
from trendflow.service.estimates import Estimates
from trendflow.service.health import Check
from trendflow.service.metrics import Metrics
from trendflow.service.users import Users
from trendflow.state.store import StateStore
from trendflow.storage.object_store import ObjectStore
from trendflow.submission.desk import SubmissionDesk
from trendflow.submission.inbox import Inbox
from trendflow.submission.message import Message
from trendflow.submission.request import Profiles


@dataclass(frozen=True)
class ComponentPlace:
    """Where a component stands in the graph."""

    processor: str
    kind: str


class TextHandOver(Protocol):
    """Brings the text of a request, which nothing here may store, to where its run is executed."""

    def __call__(self, message: Message, document: VideoDocument) -> None:
        """Called before the run is accepted, also for one that is then refused.

        The text belongs under its digest, which the message's metadata hold, and not under the run: a request that is
        refused must not replace the text of the run that has its id.
        """
        ...

    def withdraw(self, message: Message, document: VideoDocument) -> None:
        """No run was made of the message: nobody needs its text, unless for another run. Raises nothing."""
        ...


class Erasure(Protocol):
    """Deletion of a video from the whole deployment."""

    def request(self, platform_id: str, video_id: str, *, by: str) -> str:
        """Note that the video is to be deleted and return the id of the request; asking again gives the same one."""
        ...

    def report(self, request_id: str) -> Mapping[str, Any] | None:
        """What was deleted so far, None for an unknown request. Names nobody."""
        ...


class Retention(Protocol):
    """Removal of what is older than the deployment keeps it."""

    def cleanup(self, *, dry_run: bool) -> Mapping[str, Any]:
        """Clean up, or say what would go; returns counts and bytes per class."""
        ...


@dataclass(frozen=True)
class ServiceLimits:
    """Limits of answering; they change no result."""

    max_body_bytes: int = 1 << 20
    streams_per_run: int = 10
    streams_per_user: int = 20
    streams: int = 100
    """Event streams at once, of all users."""
    poll_sec: float = 1.0
    """How often an event stream looks for the next event."""
    keep_alive_sec: float = 15.0


@dataclass(frozen=True, eq=False)
class ServiceParts:
    """The parts. What is None is not there, and its paths say so."""

    store: ObjectStore
    states: StateStore
    inbox: Inbox
    desk: SubmissionDesk
    schemas: SchemaRegistry
    profiles: Profiles
    begin_log: Callable[[Message], None]
    """Makes the run of a message `pending`; one that has a log keeps it."""
    required: Callable[[str], Collection[str]]
    """Components of a profile whose failure fails the run; none of a profile that is not there any more."""
    components: Mapping[str, ComponentPlace]
    users: Users
    metrics: Metrics
    checks: Sequence[Check] = ()
    limits: ServiceLimits = field(default_factory=ServiceLimits)
    estimates: Estimates | None = None
    hand_over: TextHandOver | None = None
    uploads: Path | None = None
    """Folder of the uploads that requests may name, each under its id."""
    is_deleted: Callable[[str, str], bool] = lambda platform_id, video_id: False
    """Whether a video was deleted, also while its deletion is not complete: nothing of it is handed out."""
    erasure: Erasure | None = None
    retention: Retention | None = None
