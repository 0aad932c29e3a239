"""Reads a `frames_dir`: the union of sampled frames and the audio, validated on opening."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.identity import IDENTITY_KEYS, RunIdentity
from trendflow.media import documents
from trendflow.media.frames_writer import npy_header
from trendflow.media.wav import read_wav


@dataclass(frozen=True)
class FamilyWindows:
    """One audio family; arrays over its windows, float64 seconds on the video's time axis, mask bool."""

    family: str
    window_sec: float
    start_sec: np.ndarray
    end_sec: np.ndarray
    center_sec: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class AudioData:
    """Decoded audio; sample 0 is video time 0. Shapes `[n]` and `[m, channels]`, amplitudes ±1 full scale."""

    present: bool
    empty_reason: str | None
    windows: FamilyWindows | None
    mono: np.ndarray
    mono_rate: int
    full: np.ndarray
    full_rate: int
    channel_layout: str


def _invalid(message: str) -> TrendFlowError:
    return TrendFlowError("artifact_validation_failed", message)


def _missing(message: str, kind: str) -> TrendFlowError:
    return TrendFlowError("dependency_missing", message, kind=kind)


def read_document(root: Path, name: str) -> dict[str, Any]:
    """One JSON document of the folder. Raises `dependency_missing` when absent, `artifact_validation_failed` if bad."""
    try:
        document = json.loads((root / name).read_bytes())
    except FileNotFoundError as exc:
        raise _missing("The frames folder is incomplete or absent.", "frames_dir") from exc
    except ValueError as exc:
        raise _invalid(f"{name} is not JSON.") from exc
    if not isinstance(document, dict):
        raise _invalid(f"{name} is not a JSON object.")
    return document


def validate_metadata(metadata: Mapping[str, Any]) -> None:
    """Check the rules of `video/metadata.json`. Raises `artifact_validation_failed`.

    Indices sorted, unique and in range; union times strictly increasing; batches cover the union without gap or
    overlap.
    """
    try:
        total = metadata["total_frames"]
        source, times = metadata["union_frame_indices_source"], metadata["union_timestamps_sec"]
        if len(source) != total or len(times) != total:
            raise _invalid("The union arrays do not have one entry per frame.")
        if not _increasing(source) or not _increasing(times) or (total and source[0] < 0):
            raise _invalid("Union frame numbers and times must strictly increase.")
        for name, entry in documents.component_entries(metadata).items():
            positions = entry["frame_indices"]
            if not isinstance(positions, list) or not _increasing(positions):
                raise _invalid(f"The frame indices of {name} are not sorted and unique.")
            if positions and not (positions[0] >= 0 and positions[-1] < total):
                raise _invalid(f"The frame indices of {name} leave the union.")
            if entry["source_frame_indices"] != [source[k] for k in positions]:
                raise _invalid(f"The source frames of {name} disagree with its frame indices.")
        end = 0
        for number, batch in enumerate(metadata["batches"]):
            wrong_name = batch["path"] != f"batch_{number:05d}.npy"
            if batch["batch_index"] != number or batch["start_frame"] != end or wrong_name:
                raise _invalid("The frame batches leave a gap or overlap.")
            end = batch["end_frame"]
            if not 0 < end - batch["start_frame"] <= metadata["chunk_size"]:
                raise _invalid("A frame batch has the wrong size.")
        if end != total:
            raise _invalid("The frame batches do not cover the union.")
    except (KeyError, TypeError, IndexError) as exc:
        raise _invalid("video/metadata.json lacks a field or holds one of the wrong type.") from exc


def _increasing(values: list[float]) -> bool:
    return all(a < b for a, b in pairwise(values))


class FramesDir:
    """Random access to frames by union index. Batches are memory-mapped; the most recent ones stay mapped."""

    def __init__(self, root: Path, metadata: dict[str, Any]) -> None:
        self.root = root
        self.metadata = metadata
        self._starts = np.array([b["start_frame"] for b in metadata["batches"]], dtype=np.int64)
        self._mapped: OrderedDict[int, np.ndarray] = OrderedDict()

    @classmethod
    def open(cls, path: Path) -> FramesDir:
        """Open a complete folder.

        Raises `dependency_missing` when it is absent or incomplete, `artifact_validation_failed` when its documents
        contradict each other or a batch file has the wrong size.
        """
        metadata = read_document(path, documents.VIDEO_METADATA)
        validate_metadata(metadata)
        for name in (documents.AUDIO_METADATA, documents.SEGMENTS):
            other = read_document(path, name)
            if any(other.get(key) != metadata.get(key) for key in IDENTITY_KEYS):
                raise _invalid(f"{name} belongs to another run.")
        for batch in metadata["batches"]:
            shape = cls._shape(metadata, batch)
            file = path / "video" / batch["path"]
            if not file.is_file() or file.stat().st_size != len(npy_header(shape)) + int(np.prod(shape)):
                raise _invalid("A frame batch is missing or has the wrong size.")
        return cls(path, metadata)

    @property
    def identity(self) -> RunIdentity:
        return RunIdentity.from_mapping(self.metadata)

    def __len__(self) -> int:
        return int(self.metadata["total_frames"])

    def read(self, union_indices: np.ndarray) -> np.ndarray:
        """uint8 `[n, H, W, 3]` RGB copies. An index outside the union raises `dependency_missing`."""
        wanted = np.asarray(union_indices, dtype=np.int64).ravel()
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise _missing("A frame outside the union was asked for.", "frame_indices")
        frames = np.empty((len(wanted), self.metadata["height"], self.metadata["width"], 3), dtype=np.uint8)
        batches = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(batches):
            rows = batches == number
            frames[rows] = self._batch(int(number))[wanted[rows] - self._starts[number]]
        return frames

    def samples(self, component: str) -> tuple[np.ndarray, np.ndarray]:
        """Union positions (int32) and times in seconds (float64) of a component's frames.

        Raises `dependency_missing` for a component without an entry.
        """
        entry = documents.component_entries(self.metadata).get(component)
        if entry is None:
            raise _missing(f"No frames were sampled for {component}.", "frame_indices")
        indices = np.array(entry["frame_indices"], dtype=np.int32)
        times = np.array(self.metadata["union_timestamps_sec"], dtype=np.float64)
        return indices, times[indices]

    def audio_input(self, family: str | None = None) -> AudioData:
        """The audio with the windows of one family (None: without windows).

        Without an audio stream `present` is False and the signals are empty. Raises `dependency_missing` for a family
        that was not written.
        """
        facts = read_document(self.root, documents.AUDIO_METADATA)
        if not facts["audio_present"]:
            empty = np.empty(0, dtype=np.float32)
            return AudioData(False, facts["empty_reason"], None, empty, facts["sample_rate"],
                             empty.reshape(0, 1), 48000, "")  # fmt: skip
        windows = self._windows(family) if family is not None else None
        mono = read_wav(self._audio_file(facts["audio_path"]))
        full = read_wav(self._audio_file(facts["audio_full_path"]))
        if mono.sample_rate != facts["sample_rate"] or len(mono.samples) != facts["total_samples"]:
            raise _invalid("audio.wav disagrees with audio/metadata.json.")
        return AudioData(
            present=True,
            empty_reason=None,
            windows=windows,
            mono=mono.samples[:, 0].astype(np.float32) / np.float32(32768),
            mono_rate=mono.sample_rate,
            full=full.samples,
            full_rate=full.sample_rate,
            channel_layout=facts["channel_layout"],
        )

    def _windows(self, family: str) -> FamilyWindows:
        entry = read_document(self.root, documents.SEGMENTS)["families"].get(family)
        if entry is None:
            raise _missing(f"The audio family {family!r} was not written.", "audio_family")
        rows = entry["segments"]
        start, end, center = (
            np.array([row[name] for row in rows], dtype=np.float64) for name in ("start_sec", "end_sec", "center_sec")
        )
        mask = np.array([row["mask"] for row in rows], dtype=bool)
        return FamilyWindows(family, entry["window_sec"], start, end, center, mask)

    def _audio_file(self, name: str) -> Path:
        if name not in (documents.MONO_NAME, documents.FULL_NAME):
            raise _invalid("audio/metadata.json names an unknown file.")
        path = self.root / "audio" / name
        if not path.is_file():
            raise _missing("An audio file of the frames folder is missing.", "frames_dir")
        return path

    def _batch(self, number: int) -> np.ndarray:
        if number in self._mapped:
            self._mapped.move_to_end(number)
            return self._mapped[number]
        entry = self.metadata["batches"][number]
        frames = np.load(self.root / "video" / entry["path"], mmap_mode="r", allow_pickle=False)
        if frames.shape != self._shape(self.metadata, entry) or frames.dtype != np.uint8:
            raise _invalid("A frame batch has the wrong shape.")
        self._mapped[number] = frames
        while len(self._mapped) > self.metadata["cache_size"]:
            self._mapped.popitem(last=False)
        return frames

    @staticmethod
    def _shape(metadata: Mapping[str, Any], batch: Mapping[str, Any]) -> tuple[int, int, int, int]:
        return (batch["end_frame"] - batch["start_frame"], metadata["height"], metadata["width"], 3)
