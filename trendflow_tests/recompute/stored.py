"""One stored run as anybody finds it: the files of the store, read with numpy and soundfile alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

from trendflow.contracts.video_document import VideoDocument

XDIST_GROUP = "recompute"
"""Every module that uses the run marks itself with it, so that one worker makes the run once."""


@dataclass(frozen=True, eq=False)
class StoredRun:
    """Folders of one run. Arrays come back as they are stored; nothing here computes anything."""

    source: Path
    """The media file that was processed."""
    results: Path
    frames_dir: Path
    models: Path
    catalogue: Path
    profile_models: Mapping[str, str]
    """Role → catalogue entry of the profile the run was made with."""
    document: VideoDocument

    def arrays(self, component: str, stem: str | None = None) -> dict[str, np.ndarray]:
        """All arrays of an artifact; `stem` where a component has more than its main one."""
        with np.load(self.results / component / f"{stem or component}.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name != "meta"}

    def scalar(self, component: str, name: str) -> float:
        """One member of feature_values. Raises ValueError for a name the artifact does not have."""
        arrays = self.arrays(component)
        return float(arrays["feature_values"][arrays["feature_names"].tolist().index(name)])

    def meta(self, component: str) -> dict[str, Any]:
        with np.load(self.results / component / f"{component}.npz", allow_pickle=False) as file:
            return dict(json.loads(str(file["meta"])))

    def dense(self) -> dict[str, np.ndarray]:
        """One row per decoded source frame."""
        return self.arrays("segmenter", "dense_signals")

    def frames(self, positions: np.ndarray) -> np.ndarray:
        """uint8 RGB `[n, H, W, 3]` at these positions of the union of sampled frames."""
        return self._union[np.asarray(positions, dtype=np.int64)]

    def audio(self, name: str) -> tuple[np.ndarray, int]:
        """`audio.wav` (mono, analysis rate) or `audio_full.wav` as float64 `[n, channels]`, ±1 full scale, and rate."""
        samples, rate = soundfile.read(self.frames_dir / "audio" / name, dtype="float64", always_2d=True)
        return samples, int(rate)

    def model(self, role: str) -> tuple[dict[str, Any], Path]:
        """The catalogue entry behind a role, as written, and the folder of its weights."""
        name = self.profile_models[role]
        entry = yaml.safe_load(self.catalogue.read_text(encoding="utf-8"))["entries"][name]
        return entry, self.models / name / entry["version"]

    @cached_property
    def _union(self) -> np.ndarray:
        return np.concatenate([np.load(path) for path in sorted((self.frames_dir / "video").glob("batch_*.npy"))])
