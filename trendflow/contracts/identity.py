"""Run identity: six values that travel with every process and end up in every artifact."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.vocab import PLATFORM_IDS

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}\Z")
_VERSION = re.compile(r"[A-Za-z0-9._+-]{1,64}\Z")
_HEX64 = re.compile(r"[0-9a-f]{64}\Z")

IDENTITY_KEYS = (
    "platform_id",
    "video_id",
    "run_id",
    "config_hash",
    "sampling_policy_version",
    "dataprocessor_version",
)


def _refuse(message: str, **detail: Any) -> TrendFlowError:
    return TrendFlowError("input_constraint_violated", message, **detail)


def validate_video_id(platform_id: str, video_id: str) -> None:
    """Refuse ids that are malformed or could collide across platforms (`input_constraint_violated`)."""
    if platform_id not in PLATFORM_IDS:
        raise _refuse(f"Platform {platform_id!r} is not one of {sorted(PLATFORM_IDS)}.")
    if not _ID.match(video_id):
        raise _refuse(f"Video id {video_id!r} must be 1 to 64 letters, digits, '_' or '-'.")
    if (platform_id == "youtube") != bool(_YOUTUBE_ID.match(video_id)):
        shape = "must be" if platform_id == "youtube" else "must not be"
        raise _refuse(f"The id {video_id!r} of platform {platform_id!r} {shape} 11 characters in YouTube's shape.")


def validate_run_id(run_id: str) -> None:
    if not _ID.match(run_id):
        raise _refuse(f"Run id {run_id!r} must be 1 to 64 letters, digits, '_' or '-'.")


def platform_of(video_id: str) -> str:
    """The platform a stored run lives under. Unambiguous because upload ids never have YouTube's shape."""
    return "youtube" if _YOUTUBE_ID.match(video_id) else "upload"


@dataclass(frozen=True)
class RunIdentity:
    """The identity of one run; validated on construction.

    Raises `input_constraint_violated` for ids and `config_invalid` for hashes and versions.
    """

    platform_id: str
    video_id: str
    run_id: str
    config_hash: str
    sampling_policy_version: str
    dataprocessor_version: str

    def __post_init__(self) -> None:
        validate_video_id(self.platform_id, self.video_id)
        validate_run_id(self.run_id)
        if not _HEX64.match(self.config_hash):
            raise TrendFlowError("config_invalid", "config_hash must be 64 lower-case hex digits.")
        for name in ("sampling_policy_version", "dataprocessor_version"):
            if not _VERSION.match(getattr(self, name)):
                raise TrendFlowError("config_invalid", f"{name} {getattr(self, name)!r} is not a version string.")

    @property
    def partition_key(self) -> str:
        return f"{self.video_id}/{self.run_id}"

    @property
    def run_path(self) -> str:
        """`<platform_id>/<video_id>/<run_id>`: the folder name of a run in every part of the store."""
        return f"{self.platform_id}/{self.video_id}/{self.run_id}"

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> RunIdentity:
        return cls(**{key: values[key] for key in IDENTITY_KEYS})


def partition_key_of(run_path: str) -> str:
    """`<platform_id>/<video_id>/<run_id>` → `<video_id>/<run_id>`, as commands take it: the ids tell the platform."""
    return run_path.partition("/")[2]


def split_partition_key(key: str) -> tuple[str, str]:
    """`<video_id>/<run_id>` → the two ids. Raises `input_constraint_violated`."""
    video_id, slash, run_id = key.partition("/")
    if not slash or not _ID.match(video_id) or not _ID.match(run_id):
        raise _refuse(f"{key!r} is not a partition key of the form <video_id>/<run_id>.")
    return video_id, run_id
