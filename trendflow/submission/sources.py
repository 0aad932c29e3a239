"""What a person or a caller points at: a YouTube URL or a video file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import validate_video_id
from trendflow.submission.message import SourceType

_YOUTUBE = re.compile(
    r"https?://(?:(?:www|m|music)\.)?(?:youtube\.com/(?:watch\?(?:[^#]*&)?v=|shorts/|live/|embed/)|youtu\.be/)"
    r"(?P<id>[A-Za-z0-9_-]{11})(?![A-Za-z0-9_-])"
)


@dataclass(frozen=True)
class Source:
    """A submission's source with the ids that follow from it."""

    locator: str
    source_type: SourceType
    platform_id: str
    video_id: str


def parse_source(text: str, video_id: str | None = None) -> Source:
    """A YouTube URL or a local file.

    A file without an explicit id is named after its content, so the same file is the same video wherever it lies.
    Raises `source_unavailable` for a folder and for a file that is not there or may not be read,
    `input_constraint_violated` for other URLs and bad ids.
    """
    if "://" in text:
        match = _YOUTUBE.match(text)
        if match is None:
            raise TrendFlowError(
                "input_constraint_violated", "Only YouTube video URLs and local files can be processed."
            )
        source = Source(text, "youtube_url", "youtube", video_id or match["id"])
    else:
        source = _local_file(text, video_id)
    validate_video_id(source.platform_id, source.video_id)
    return source


def parse_url(text: str) -> Source:
    """A YouTube URL in its plain form, without parameters that say more than which video.

    Raises `input_constraint_violated` for anything else, so no path of this machine gets through.
    """
    match = _YOUTUBE.match(text)
    if match is None:
        raise TrendFlowError("input_constraint_violated", "Only URLs of YouTube videos are accepted here.")
    return Source(f"https://www.youtube.com/watch?v={match['id']}", "youtube_url", "youtube", match["id"])


@contextmanager
def existing_path(text: str) -> Iterator[Path]:
    """The path a person wrote. Whatever the system says against it inside the block becomes one sentence."""
    path = Path(text)
    named = repr(path.name[:100]) if path.name else "The given path"
    try:
        path = path.expanduser()
        if path.is_dir():
            raise TrendFlowError("source_unavailable", f"{named} is a folder, not a file.")
        if not path.exists():
            raise TrendFlowError("source_unavailable", _absent(path))
        yield path
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno else type(exc).__name__
        raise TrendFlowError("source_unavailable", f"{named} cannot be read: {reason}.", errno=exc.errno) from exc
    except RuntimeError as exc:  # "~user" without such a user
        raise TrendFlowError("source_unavailable", f"{text.partition('/')[0]!r} is nobody's home folder.") from exc


def _local_file(text: str, video_id: str | None) -> Source:
    with existing_path(text) as path:
        if not path.is_file():
            raise TrendFlowError("source_unavailable", _absent(path))
        with path.open("rb"):
            pass
        return Source(str(path.absolute()), "local_path", "upload", video_id or _id_from_file(path))


def _absent(path: Path) -> str:
    return f"There is no file {path.name[:100]!r} at the given path."


def _id_from_file(path: Path) -> str:
    from trendflow.media.ingest import file_sha256

    slug = re.sub(r"[^A-Za-z0-9_]+", "-", path.stem).strip("-")[:40] or "video"
    return f"{slug}-{file_sha256(path)[:12]}"  # 12 digits and a dash: never YouTube's 11-character shape
