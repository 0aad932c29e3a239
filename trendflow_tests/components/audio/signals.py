"""Builds audio inputs and test signals in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import soxr

from trendflow.components.base import AudioInput, AudioWindows, ComponentInputs, VideoInfo
from trendflow.contracts.artifact import Artifact

FULL_RATE = 48_000
MONO_RATE = 22_050


def sine(seconds: float, dbfs_peak: float, *, hz: float = 1000.0, rate: int = FULL_RATE) -> np.ndarray:
    """A sine of the given peak level, float64."""
    return 10 ** (dbfs_peak / 20) * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def stereo(signal: np.ndarray) -> np.ndarray:
    return np.stack([signal, signal], axis=1)


def uniform_windows(duration_s: float, window_s: float, stride_s: float, family: str = "primary") -> AudioWindows:
    """Windows that slide from 0; the last partial one counts when it covers half the window."""
    start = np.arange(0.0, max(duration_s - window_s / 2, 0.0) + 1e-9, stride_s)
    end = np.minimum(start + window_s, duration_s)
    return AudioWindows(family, window_s, start, end, (start + end) / 2, np.ones(len(start), dtype=bool))


def audio_inputs(
    full: np.ndarray,
    *,
    rate: int = FULL_RATE,
    layout: str | None = None,
    windows: AudioWindows | None = None,
    mono: np.ndarray | None = None,
) -> ComponentInputs:
    """Inputs for a signal `[m, channels]`; the mono signal is its mean at 22 050 Hz unless given."""
    full = full.astype(np.float32)
    seconds = len(full) / rate
    if mono is None:
        mono = soxr.resample(full.mean(axis=1), rate, MONO_RATE)
    layouts = {1: "mono", 2: "stereo", 6: "5.1"}
    audio = AudioInput(
        present=True,
        empty_reason=None,
        windows=uniform_windows(seconds, 2.0, 1.0) if windows is None else windows,
        mono=mono.astype(np.float32),
        mono_rate=MONO_RATE,
        full=full,
        full_rate=rate,
        channel_layout=layout or layouts[full.shape[1]],
    )
    return ComponentInputs(video=VideoInfo(seconds, 320, 180, 25.0, 25.0), upstream={}, audio=audio)


def no_audio_inputs() -> ComponentInputs:
    nothing = np.zeros(0, dtype=np.float32)
    audio = AudioInput(
        False, "audio_missing_or_extract_failed", None, nothing, MONO_RATE, np.zeros((0, 0), np.float32), FULL_RATE, ""
    )
    return ComponentInputs(video=VideoInfo(10.0, 320, 180, 25.0, 25.0), upstream={}, audio=audio)


def features(artifact: Artifact) -> dict[str, float]:
    return dict(zip(artifact.arrays["feature_names"].tolist(), artifact.arrays["feature_values"].tolist(), strict=True))


def click_track(bpm: float, seconds: float, rate: int = MONO_RATE) -> np.ndarray:
    """Short decaying 1 kHz bursts at a steady rate."""
    return place(_burst(rate, 1000.0, 0.03), np.arange(0.1, seconds - 0.1, 60.0 / bpm), seconds, rate)


def drum_pattern(bpm: float, seconds: float, rate: int = MONO_RATE) -> np.ndarray:
    """Rock beat: kick on 1 and 3, snare on 2 and 4, hi-hat on the eighths."""
    rng = np.random.default_rng(1)
    beat = 60.0 / bpm
    beats = np.arange(0.05, seconds - 0.3, beat)
    noise = rng.standard_normal(int(0.15 * rate))
    decay = np.exp(-np.arange(len(noise)) / rate / 0.03)
    hat = np.diff(noise, prepend=0.0) * np.exp(-np.arange(len(noise)) / rate / 0.01)
    return (
        place(_burst(rate, 60.0, 0.2), beats[0::2], seconds, rate)
        + 0.6 * place(noise * decay, beats[1::2], seconds, rate)
        + 0.15 * place(hat, np.arange(0.05, seconds - 0.3, beat / 2), seconds, rate)
    )


def place(sound: np.ndarray, onsets_s: Sequence[float] | np.ndarray, seconds: float, rate: int) -> np.ndarray:
    signal = np.zeros(round(seconds * rate))
    for onset in onsets_s:
        start = round(onset * rate)
        piece = sound[: max(0, len(signal) - start)]
        signal[start : start + len(piece)] += piece
    return signal


def _burst(rate: int, hz: float, seconds: float) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    return 0.8 * np.sin(2 * np.pi * hz * t) * np.exp(-t / (seconds / 4))
