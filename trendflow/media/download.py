"""Downloads a public video with yt-dlp under a fixed option list: no configuration files, no plugins, no programs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trendflow.contracts.errors import TrendFlowError
from trendflow.media.limits import MediaLimits
from trendflow.media.worker import run_job

Progress = Callable[[int, int], None]
_YOUTUBE_HOSTS = frozenset({"youtube.com", "www.youtube.com", "m.youtube.com", "music.youtube.com", "youtu.be"})
# Best video up to 1080p; formats that do not state a height are taken as they come.
_VIDEO_FORMAT = "bestvideo*[height<=?1080]/best"
_AUDIO_FORMAT = "bestaudio"
_SOCKET_TIMEOUT_SEC = 30.0


@dataclass(frozen=True)
class UrlPolicy:
    """Which addresses may be asked, and by which extractors (regular expressions of yt-dlp extractor names).

    `hosts` are compared with the whole authority of the URL, so a port has to be listed with its host and credentials
    are never accepted.
    """

    hosts: frozenset[str] = _YOUTUBE_HOSTS
    extractors: tuple[str, ...] = ("youtube",)
    schemes: frozenset[str] = frozenset({"https", "http"})


def check_url(url: str, policy: UrlPolicy) -> None:
    """Refuse addresses outside the policy (`input_constraint_violated`)."""
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise TrendFlowError("input_constraint_violated", "The source is not a valid URL.") from exc
    if parts.scheme.lower() not in policy.schemes or parts.netloc.lower() not in policy.hosts:
        raise TrendFlowError("input_constraint_violated", "The URL does not belong to a supported platform.")


def download(url: str, folder: Path, limits: MediaLimits, policy: UrlPolicy, progress: Progress | None) -> Path:
    """One attempt to download the video behind `url` into `folder`; returns the file.

    Duration and size are checked before and while bytes arrive. Raises `input_constraint_violated`,
    `source_unavailable`, `rate_limited`, `network_error` or `timeout`.
    """
    check_url(url, policy)
    guard = _Guard(limits, progress)
    info = run_ytdlp(url, _options(folder, "video", _VIDEO_FORMAT, limits, policy, guard), download=False)
    if info.get("_type") in ("playlist", "multi_video") or info.get("is_live"):
        raise TrendFlowError("input_constraint_violated", "The URL is a playlist or a live stream, not one video.")
    guard.start(info.get("duration"))
    files = []
    has_audio = info.get("acodec") != "none"
    for name, wanted in (("video", _VIDEO_FORMAT), *([] if has_audio else [("audio", _AUDIO_FORMAT)])):
        run_ytdlp(url, _options(folder, name, wanted, limits, policy, guard), download=True)
        files.append(_only_file(folder, name, limits))
        guard.finished_part()
    if len(files) == 1:
        return files[0]
    # Joining the two streams opens untrusted media, so it happens in the media child.
    target = folder / "source.mkv"
    job = {"kind": "remux", "sources": [str(file.absolute()) for file in files], "target": str(target.absolute())}
    run_job(job, limits, timeout_sec=limits.repair_timeout_sec)
    for file in files:
        file.unlink()
    return target


class _Stop(Exception):
    """Carries a typed error out of yt-dlp, which would wrap or swallow other exceptions."""

    def __init__(self, error: TrendFlowError) -> None:
        self.error = error
        super().__init__(error.message)


class _Guard:
    """Enforces duration, size and time while yt-dlp works."""

    def __init__(self, limits: MediaLimits, progress: Progress | None) -> None:
        self._limits = limits
        self._progress = progress
        self._deadline = time.monotonic() + 120.0
        self._finished_bytes = 0
        self._part_bytes = 0

    def start(self, duration: float | None) -> None:
        limits = self._limits
        if duration is not None and not limits.min_duration_sec <= duration <= limits.max_duration_sec:
            raise TrendFlowError(
                "input_constraint_violated",
                f"The video lasts {duration:g} s; allowed are {limits.min_duration_sec:g} to "
                f"{limits.max_duration_sec:g} s.",
                duration_sec=duration,
            )
        seconds = duration if duration is not None else limits.max_duration_sec
        self._deadline = time.monotonic() + max(60.0, 0.1 * seconds + 120.0)

    def finished_part(self) -> None:
        self._finished_bytes += self._part_bytes
        self._part_bytes = 0

    def on_progress(self, status: dict[str, Any]) -> None:
        self._part_bytes = int(status.get("downloaded_bytes") or 0)
        total = int(status.get("total_bytes") or status.get("total_bytes_estimate") or 0)
        done = self._finished_bytes + self._part_bytes
        if done > self._limits.max_source_bytes:
            raise _Stop(_too_large(self._limits))
        if time.monotonic() > self._deadline:
            raise _Stop(TrendFlowError("timeout", "The download took longer than allowed."))
        if self._progress is not None:
            try:
                self._progress(done, max(done, self._finished_bytes + total))
            except TrendFlowError as exc:
                raise _Stop(exc) from exc


def _too_large(limits: MediaLimits) -> TrendFlowError:
    return TrendFlowError(
        "input_constraint_violated", "The source is larger than allowed.", max_bytes=limits.max_source_bytes
    )


class _Silent:
    """Logger for yt-dlp: its messages quote addresses and titles, which do not belong in our logs."""

    def debug(self, message: str) -> None:
        pass

    info = warning = error = debug


def _options(
    folder: Path, name: str, wanted: str, limits: MediaLimits, policy: UrlPolicy, guard: _Guard
) -> dict[str, Any]:
    return {
        **closed_options(policy),
        "format": wanted,
        "outtmpl": {"default": str(folder / f"{name}.%(ext)s")},
        "noplaylist": True,
        "max_filesize": limits.max_source_bytes,
        "overwrites": True,
        "continuedl": False,
        "nopart": False,
        "progress_hooks": [guard.on_progress],
    }


def closed_options(policy: UrlPolicy) -> dict[str, Any]:
    """What every use of yt-dlp has in common: silent, and nothing outside this process."""
    return {
        "allowed_extractors": list(policy.extractors),
        "socket_timeout": _SOCKET_TIMEOUT_SEC,
        "retries": 0,  # retries are counted and logged by the caller
        "fragment_retries": 3,
        "extractor_retries": 0,
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "logger": _Silent(),
        # No cache, no local files, no programs.
        "cachedir": False,
        "enable_file_urls": False,
        "external_downloader": {"default": "native"},
        "hls_prefer_native": True,
        "ffmpeg_location": os.devnull,
        "postprocessors": [],
        "fixup": "never",
        "js_runtimes": {},
        "remote_components": set(),
        "cookiefile": None,
        "cookiesfrombrowser": None,
        "usenetrc": False,
        "writethumbnail": False,
        "writeinfojson": False,
        "writesubtitles": False,
    }


def run_ytdlp(url: str, options: dict[str, Any], *, download: bool) -> dict[str, Any]:
    """What yt-dlp says about the URL. Its failures come as `source_unavailable`, `rate_limited`, `network_error`,
    `timeout`; without the package `dependency_missing`."""
    try:
        import yt_dlp
        import yt_dlp.globals
        from yt_dlp.utils import YoutubeDLError
    except ImportError as exc:
        raise TrendFlowError(
            "dependency_missing", "Downloading needs the package yt-dlp.", kind="python_package", name="yt-dlp"
        ) from exc
    yt_dlp.globals.plugin_dirs.value = []
    try:
        with yt_dlp.YoutubeDL(options) as client:
            info = client.extract_info(url, download=download)
    except _Stop as stop:
        raise stop.error from stop
    except YoutubeDLError as exc:
        raise _typed(exc) from exc
    if info is None:
        raise TrendFlowError("source_unavailable", "The platform offers no video at this address.")
    return dict(info)


def _typed(exc: Exception) -> TrendFlowError:
    """Class of a yt-dlp failure, told from the exceptions behind it; its own text is not passed on."""
    from yt_dlp.networking.exceptions import HTTPError, TransportError

    for cause in _causes(exc):
        if isinstance(cause, _Stop):
            return cause.error
        if isinstance(cause, HTTPError):
            if cause.status == 429:
                wait = cause.response.headers.get("Retry-After")
                seconds = int(wait) if wait is not None and wait.isdecimal() else None
                return TrendFlowError("rate_limited", "The platform asks to slow down.", retry_after_sec=seconds)
            if cause.status >= 500:
                return TrendFlowError("network_error", "The platform failed to answer.", http_status=cause.status)
            return TrendFlowError(
                "source_unavailable", "The platform does not give out this video.", http_status=cause.status
            )
        if isinstance(cause, TimeoutError):
            return TrendFlowError("timeout", "The platform did not answer in time.")
        if isinstance(cause, TransportError | OSError):
            if "timed out" in str(cause):
                return TrendFlowError("timeout", "The platform did not answer in time.")
            return TrendFlowError("network_error", "The connection to the platform failed.")
    return TrendFlowError("source_unavailable", "The video is removed, private, restricted or not supported.")


def _causes(exc: BaseException) -> list[BaseException]:
    """An exception and everything that led to it, outermost first, including yt-dlp's own links."""
    found: list[BaseException] = []
    waiting: list[Any] = [exc]
    while waiting:
        item = waiting.pop(0)
        if not isinstance(item, BaseException) or item in found:
            continue
        found.append(item)
        info = getattr(item, "exc_info", None)
        waiting += [info[1] if isinstance(info, tuple) else None, getattr(item, "cause", None)]
        waiting += [item.__cause__, item.__context__]
    return found


def _only_file(folder: Path, name: str, limits: MediaLimits) -> Path:
    files = [file for file in folder.glob(f"{name}.*") if file.suffix not in (".part", ".ytdl")]
    if len(files) != 1:
        raise _too_large(limits)  # yt-dlp skips, without an error, what exceeds `max_filesize`
    return files[0]
