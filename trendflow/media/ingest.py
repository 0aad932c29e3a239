"""Brings a source to local disk: a file where it lies, or a download from a platform."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.download import UrlPolicy, download
from trendflow.media.limits import MIB, MediaLimits

Progress = Callable[[int, int], None]
SourceType = Literal["local_path", "youtube_url"]
_RETRY_WAITS_SEC = (5.0, 15.0, 30.0)
_MAX_RETRY_AFTER_SEC = 120.0
_SMALL_DOWNLOAD = MIB
_PLATFORM = UrlPolicy()


@dataclass(frozen=True)
class LocalSource:
    """A source on local disk. `sha256` covers the bytes received; `warnings` belong to the Segmenter's artifact."""

    path: Path
    type: SourceType
    sha256: str
    bytes: int
    warnings: tuple[str, ...] = ()


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(
    source: str,
    dest: Path,
    limits: MediaLimits | None = None,
    progress: Progress | None = None,
    *,
    policy: UrlPolicy = _PLATFORM,
    sleep: Callable[[float], None] = time.sleep,
) -> LocalSource:
    """Make a local path or URL available.

    A local file stays where it is. A URL must belong to the platform (`policy`) and is downloaded into `dest`, which is
    emptied first; transient failures are tried again up to three times, after 5, 15 and 30 s or what the platform asks
    for. `progress(done, total)` counts bytes. Raises `source_unavailable`, `input_constraint_violated`,
    `network_error`, `rate_limited`, `timeout` or `storage_unavailable`.
    """
    limits = limits or MediaLimits()
    if "://" in source:
        path = _download_with_retries(source, dest, limits, progress, policy, sleep)
        warnings = ("small_source_file",) if path.stat().st_size < _SMALL_DOWNLOAD else ()
        return _describe(path, "youtube_url", limits, warnings)
    path = Path(source).expanduser()
    if not path.is_file():
        raise TrendFlowError("source_unavailable", f"There is no readable file {path.name!r}.")
    return _describe(path.absolute(), "local_path", limits, ())


def _describe(path: Path, kind: SourceType, limits: MediaLimits, warnings: tuple[str, ...]) -> LocalSource:
    size = path.stat().st_size
    if size > limits.max_source_bytes:
        raise TrendFlowError(
            "input_constraint_violated",
            "The source file is larger than allowed.",
            bytes=size,
            max_bytes=limits.max_source_bytes,
        )
    try:
        return LocalSource(path, kind, file_sha256(path), size, warnings)
    except PermissionError as exc:
        raise TrendFlowError("source_unavailable", f"The file {path.name!r} may not be read.") from exc


def _download_with_retries(
    url: str,
    dest: Path,
    limits: MediaLimits,
    progress: Progress | None,
    policy: UrlPolicy,
    sleep: Callable[[float], None],
) -> Path:
    for wait in (*_RETRY_WAITS_SEC, None):
        shutil.rmtree(dest, ignore_errors=True)
        dest.mkdir(parents=True)
        try:
            return download(url, dest, limits, policy, progress)
        except TrendFlowError as exc:
            shutil.rmtree(dest, ignore_errors=True)
            if exc.error_class != "transient" or exc.error_code == "storage_unavailable" or wait is None:
                raise
            asked = exc.detail.get("retry_after_sec")
            sleep(min(max(wait, asked or 0.0), _MAX_RETRY_AFTER_SEC))
    raise AssertionError("unreachable: the last attempt returns or raises")
