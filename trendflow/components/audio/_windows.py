"""Audio windows as sample ranges, and the keys every audio component writes about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trendflow.components.base import AudioInput, AudioWindows
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.thresholds import THRESHOLDS

NO_AUDIO = "audio_missing_or_extract_failed"
LEVEL_FLOOR = 1e-6  # -120 dBFS; digital silence has no logarithm


@dataclass(frozen=True)
class AudioConstants:
    """Constants shared by all audio components."""

    silence_dbfs: float


AUDIO = THRESHOLDS.bind("audio", AudioConstants)


@dataclass(frozen=True)
class SampleRanges:
    """Windows as half-open sample ranges inside the signal; `mask` is False where nothing can be measured."""

    start: np.ndarray  # int64 [N]
    stop: np.ndarray  # int64 [N]
    mask: np.ndarray  # bool [N]


def need_windows(audio: AudioInput) -> AudioWindows:
    """The windows of a present audio. Raises `dependency_missing` when the component's family is absent."""
    if audio.windows is None:
        raise TrendFlowError(
            "dependency_missing", "The audio family of this component is missing.", kind="audio_family"
        )
    return audio.windows


def sample_ranges(windows: AudioWindows, rate: int, total: int) -> SampleRanges:
    """Sample ranges of the windows in a signal of `total` samples.

    Window times are rounded to samples, so a window may pass the end by one; it is clipped. A window without any
    sample is masked.
    """
    start = np.clip(np.rint(windows.start_sec * rate).astype(np.int64), 0, total)
    stop = np.clip(np.rint(windows.end_sec * rate).astype(np.int64), 0, total)
    return SampleRanges(start, stop, np.asarray(windows.mask, dtype=bool) & (stop > start))


def window_arrays(windows: AudioWindows | None, mask: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """`segment_*` keys of the windows with `mask` (default: all False); without windows their length is 0."""
    if windows is None:
        times = dict.fromkeys(("segment_start_sec", "segment_end_sec", "segment_center_sec"), np.zeros(0))
        return {**times, "segment_mask": np.zeros(0, dtype=bool)}
    return {
        "segment_start_sec": windows.start_sec.astype(np.float64),
        "segment_end_sec": windows.end_sec.astype(np.float64),
        "segment_center_sec": windows.center_sec.astype(np.float64),
        "segment_mask": np.zeros(len(windows.mask), dtype=bool) if mask is None else mask,
    }


def dbfs(amplitude: np.ndarray | float) -> np.ndarray:
    """20 log10 of an amplitude re full scale, float64, at least -120 dB."""
    return 20.0 * np.log10(np.maximum(amplitude, LEVEL_FLOOR))
