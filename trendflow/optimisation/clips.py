"""Frames to calibrate with and to judge by: stored runs, or video files decoded as the Segmenter decodes them.

The first part of every video calibrates, the rest is held out. Parts, not every second frame: neighbours look alike,
and a model would be judged by what it was fitted to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trendflow import __version__
from trendflow.components.base import FrameReader, FrameSamples, VideoInfo
from trendflow.contracts.canonical import utc_now
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import RunIdentity
from trendflow.media import documents, frames_store
from trendflow.media.frames_dir import FramesDir
from trendflow.media.ingest import file_sha256
from trendflow.media.sampling import ComponentSampling
from trendflow.media.segmenter import SegmentRequest, segment
from trendflow.storage.object_store import ObjectStore
from trendflow.storage.result_store import ResultStore

CALIBRATION_SHARE = 0.4
MIN_CALIBRATION, MAX_CALIBRATION = 200, 256
MIN_HELD_OUT = 256
MIN_VIDEOS = 3
"""Fewer have no spread to hold a change of a scalar against."""

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"})


@dataclass(frozen=True)
class Clip:
    """The frames of one video. `sha256` is that of the source file, `indices` and `times_s` are those of the frames."""

    name: str
    sha256: str
    frames: FrameReader
    indices: np.ndarray
    times_s: np.ndarray
    video: VideoInfo

    def __len__(self) -> int:
        return len(self.indices)

    def samples(self, start: int, stop: int, step: int = 1) -> FrameSamples:
        part = slice(start, stop, step)
        return FrameSamples(self.indices[part], self.times_s[part], self.frames)


@dataclass(frozen=True)
class Part:
    """A clip with the frames of it that serve one purpose."""

    clip: Clip
    samples: FrameSamples


def split(clips: Sequence[Clip]) -> tuple[list[Part], list[Part]]:
    """Frames that calibrate, at most `MAX_CALIBRATION` evenly spread, and frames that judge.

    Raises `input_constraint_violated` when there are too few frames or videos, or a video twice.
    """
    _require_different([clip.sha256 for clip in clips])
    edges = [round(len(clip) * CALIBRATION_SHARE) for clip in clips]
    step = max(1, -(-sum(edges) // MAX_CALIBRATION))
    calibration = [Part(clip, clip.samples(0, edge, step)) for clip, edge in zip(clips, edges, strict=True) if edge]
    held_out = [Part(clip, clip.samples(edge, len(clip))) for clip, edge in zip(clips, edges, strict=True)]
    for what, parts, least in (("calibrate", calibration, MIN_CALIBRATION), ("judge", held_out, MIN_HELD_OUT)):
        frames = sum(len(part.samples) for part in parts)
        if frames < least:
            raise TrendFlowError(
                "input_constraint_violated", f"{frames} frames to {what} with are too few; {least} are needed."
            )
    return calibration, held_out


def _require_different(digests: Sequence[str]) -> None:
    if len(set(digests)) < max(len(digests), MIN_VIDEOS):
        raise TrendFlowError(
            "input_constraint_violated",
            f"At least {MIN_VIDEOS} different videos are needed, and none twice; {len(digests)} were given, "
            f"{len(set(digests))} of them different.",
        )


def video_files(paths: Sequence[Path]) -> list[Path]:
    """Files as they are and the video files of folders, in the order of their names. Raises `source_unavailable`."""
    found = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES)
        elif path.is_file():
            found.append(path)
        else:
            raise TrendFlowError("source_unavailable", f"There is no video {path.name!r}.")
    return found


def clips_of_files(files: Sequence[Path], component: str, budget: tuple[int, int, int], scratch: Path) -> list[Clip]:
    """Decode each file into a folder below `scratch`; `budget` is the component's (min, target, max) of frames.

    Raises `input_constraint_violated` for too few files or one twice, before any is decoded, and what `segment` raises,
    with the name of the file.
    """
    clips = []
    digests = [file_sha256(file) for file in files]
    _require_different(digests)
    for number, (file, sha256) in enumerate(zip(files, digests, strict=True)):
        request = SegmentRequest(
            # Nothing of it is stored: the folder lives as long as the command.
            identity=RunIdentity("upload", f"clip_{sha256[:16]}", "optimise", "0" * 64, "sampling_v1", __version__),
            source=file,
            source_sha256=sha256,
            components=[ComponentSampling(component, *budget)],
            families={},
            scratch=scratch / f"{number:04d}",
            created_at=utc_now(),
        )
        try:
            clips.append(_clip(segment(request).frames_dir, component))
        except TrendFlowError as exc:  # the sentence alone would not say which of the files it is about
            raise TrendFlowError(exc.error_code, f"{file.name}: {exc.message}", **exc.detail) from exc
    return clips


def clips_of_runs(results: ResultStore, store: ObjectStore, component: str, limit: int, scratch: Path) -> list[Clip]:
    """The frames of up to `limit` stored runs, one per source file, in the order of their paths.

    Runs whose frames have expired or that sampled none for `component` are passed over. Raises what reading the store
    raises.
    """
    clips: dict[str, Clip] = {}
    for run_path in results.run_paths():
        if len(clips) == limit:
            break
        manifest = results.read_manifest(run_path)
        block = manifest["run"]["frames_dir"] if manifest else None
        if (
            manifest is None
            or block is None
            or manifest["run"]["source"]["sha256"] in clips
            or frames_store.is_expired(block["expires_at"])
            or not frames_store.is_complete(store, run_path)
        ):
            continue
        folder = store.local_path(block["store_key"])
        if folder is None:
            folder = scratch / run_path
            frames_store.download(store, run_path, folder)
        if component in documents.component_entries(FramesDir.open(folder).metadata):
            clip = _clip(folder, component)
            clips[clip.sha256] = clip
    return list(clips.values())


def _clip(folder: Path, component: str) -> Clip:
    frames = FramesDir.open(folder)
    facts = frames.metadata
    indices, times = frames.samples(component)
    return Clip(
        name=facts["video_path"],
        sha256=facts["source_sha256"],
        frames=frames,
        indices=indices,
        times_s=times,
        video=VideoInfo(
            duration_sec=facts["duration_sec"],
            analysis_width=facts["analysis_width"],
            analysis_height=facts["analysis_height"],
            analysis_fps=facts["analysis_fps"],
            source_fps=facts["source_fps"],
        ),
    )
