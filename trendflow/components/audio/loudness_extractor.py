"""loudness_extractor: level and dynamics after ITU-R BS.1770-4 and EBU R128, from the full-quality audio.

Method: everything but the frame levels is measured on `audio_full.wav`. Levels are 20 log10(max(x, 1e-6)) dBFS of RMS
or peak, without a filter.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from trendflow.components.audio import _bs1770 as bs1770
from trendflow.components.audio._signal_pass import SignalMeasures, grid_bounds, measure
from trendflow.components.audio._windows import (
    AUDIO,
    NO_AUDIO,
    SampleRanges,
    dbfs,
    need_windows,
    sample_ranges,
    window_arrays,
)
from trendflow.components.base import AudioInput, AudioWindows, ComponentInputs, ComponentSpec
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.thresholds import THRESHOLDS

SPEC = ComponentSpec(
    name="loudness_extractor",
    producer_version="1.0.0",
    schema_version="loudness_extractor_npz_v3",
    hard=("segmenter",),
    reads=("audio", "audio_full"),
    reference=THRESHOLDS.reference,
)

FEATURES = (
    "lufs_integrated",
    "lufs_momentary_max",
    "lufs_short_term_max",
    "loudness_range_lu",
    "true_peak_dbtp",
    "sample_peak_dbfs",
    "rms_dbfs",
    "crest_factor_db",
    "frame_rms_std_dbfs",
    "frame_rms_p10_dbfs",
    "frame_rms_p90_dbfs",
    "silence_ratio",
    "hook_loudness_diff_lu",
    "clipping_ratio",
)

_FRAME, _HOP = 2048, 512


@dataclass(frozen=True)
class LoudnessConstants:
    clipping_level: float
    hook_s: float


LOUDNESS = THRESHOLDS.bind("loudness_extractor", LoudnessConstants)


def run(inputs: ComponentInputs) -> Artifact:
    """Measure loudness, peaks and levels.

    Raises `dependency_missing` without pyloudnorm, windows or signal, `artifact_validation_failed` for a channel
    layout that does not fit the signal and for samples that are not finite.
    """
    audio = inputs.need_audio()
    if not audio.present:
        return _without_level(None, NO_AUDIO, {})
    windows = need_windows(audio)
    total = len(audio.full)
    if total == 0 or len(audio.mono) == 0:
        raise TrendFlowError("dependency_missing", "The audio signal of this run is missing.", kind="wav")
    started = time.perf_counter()
    ranges = sample_ranges(windows, audio.full_rate, total)
    grid = grid_bounds(total, audio.full_rate)
    weights = bs1770.channel_weights(audio.channel_layout, audio.full.shape[1])
    bounds = np.concatenate([grid, ranges.start, ranges.stop])
    measured = measure(audio.full, audio.full_rate, weights, bounds, LOUDNESS.clipping_level, inputs.progress)
    elapsed = {"measure": (time.perf_counter() - started) * 1e3}

    rms = _window_rms(measured, ranges)
    silent = rms[ranges.mask] < AUDIO.silence_dbfs
    silence_ratio = float(silent.mean()) if len(silent) else float("nan")
    clipping_ratio = measured.clipped / audio.full.size
    if silence_ratio == 1.0:
        shares = {"silence_ratio": silence_ratio, "clipping_ratio": clipping_ratio}
        return _without_level(windows, "audio_silent", shares, elapsed)
    features = _loudness_features(measured, grid) | _level_features(measured, audio)
    features |= {"silence_ratio": silence_ratio, "clipping_ratio": clipping_ratio}
    return Artifact(
        arrays={
            **window_arrays(windows, ranges.mask),
            "segment_rms_dbfs": rms.astype(np.float32),
            "segment_peak_dbfs": _window_peak(measured, ranges).astype(np.float32),
            "segment_lufs": _window_lufs(measured, ranges).astype(np.float32),
            "lufs_present": np.array(np.isfinite(features["lufs_integrated"])),
            **feature_arrays({name: features[name] for name in FEATURES}),
        },
        meta={"thresholds_version": THRESHOLDS.version, "absent_features": _absent(features)},
        stage_timings_ms=elapsed,
    )


def _loudness_features(measured: SignalMeasures, grid: np.ndarray) -> dict[str, float]:
    energy = measured.totals(measured.weighted, grid[:-1], grid[1:])
    samples = np.diff(grid)
    blocks = bs1770.window_power(energy, samples, bs1770.MOMENTARY, bs1770.GATING_STEP)
    integrated = bs1770.integrated_loudness(blocks)
    hook_cells = int(LOUDNESS.hook_s * bs1770.GRID_PER_SECOND)
    hook = bs1770.window_power(energy[:hook_cells], samples[:hook_cells], bs1770.MOMENTARY, bs1770.GATING_STEP)
    return {
        "lufs_integrated": integrated,
        "lufs_momentary_max": _max_loudness(bs1770.window_power(energy, samples, bs1770.MOMENTARY, 1)),
        "lufs_short_term_max": _max_loudness(bs1770.window_power(energy, samples, bs1770.SHORT_TERM, 1)),
        "loudness_range_lu": bs1770.loudness_range(
            bs1770.window_power(energy, samples, bs1770.SHORT_TERM, bs1770.GATING_STEP)
        ),
        "hook_loudness_diff_lu": bs1770.integrated_loudness(hook) - integrated,
    }


def _max_loudness(power: np.ndarray) -> float:
    level = float(bs1770.loudness(power.max(initial=0.0)))
    return level if np.isfinite(level) else float("nan")


def _level_features(measured: SignalMeasures, audio: AudioInput) -> dict[str, float]:
    rms = float(dbfs(np.sqrt(measured.squares.sum() / audio.full.size)))
    peak = float(dbfs(measured.peaks.max()))
    features = {
        "true_peak_dbtp": float(dbfs(measured.true_peak)),
        "sample_peak_dbfs": peak,
        "rms_dbfs": rms,
        "crest_factor_db": peak - rms,
    }
    frames = frame_rms_dbfs(audio.mono)
    nan = float("nan")
    low, high = np.percentile(frames, (10, 90)) if len(frames) else (nan, nan)
    return features | {
        "frame_rms_std_dbfs": float(frames.std()) if len(frames) > 1 else nan,
        "frame_rms_p10_dbfs": float(low),
        "frame_rms_p90_dbfs": float(high),
    }


def frame_rms_dbfs(mono: np.ndarray) -> np.ndarray:
    """RMS level of the complete frames of 2048 samples that start every 512, float64."""
    hops = len(mono) // _HOP
    per_hop = np.empty(hops)
    chunk = 4096
    for first in range(0, hops, chunk):
        block = mono[first * _HOP : min(first + chunk, hops) * _HOP].reshape(-1, _HOP).astype(np.float64)
        per_hop[first : first + len(block)] = np.einsum("hs,hs->h", block, block)
    span = _FRAME // _HOP
    if hops < span:
        return np.zeros(0)
    squares = np.lib.stride_tricks.sliding_window_view(per_hop, span).sum(axis=1)
    return dbfs(np.sqrt(squares / _FRAME))


def _window_rms(measured: SignalMeasures, ranges: SampleRanges) -> np.ndarray:
    squares = measured.totals(measured.squares, ranges.start, ranges.stop)
    samples = np.maximum(ranges.stop - ranges.start, 1) * measured.channels
    return np.where(ranges.mask, dbfs(np.sqrt(squares / samples)), np.nan)


def _window_peak(measured: SignalMeasures, ranges: SampleRanges) -> np.ndarray:
    peaks = np.full(len(ranges.mask), np.nan)
    peaks[ranges.mask] = dbfs(measured.maxima(ranges.start[ranges.mask], ranges.stop[ranges.mask]))
    return peaks


def _window_lufs(measured: SignalMeasures, ranges: SampleRanges) -> np.ndarray:
    """Ungated loudness of each window; NaN below the absolute gate and where masked."""
    energy = measured.totals(measured.weighted, ranges.start, ranges.stop)
    level = bs1770.loudness(energy / np.maximum(ranges.stop - ranges.start, 1))
    return np.where(ranges.mask & (level >= bs1770.ABSOLUTE_GATE), level, np.nan)


def _absent(features: dict[str, float]) -> dict[str, str]:
    reasons = {
        "lufs_integrated": "no 400 ms block above -70 LUFS",
        "lufs_momentary_max": "audio shorter than 400 ms",
        "lufs_short_term_max": "audio shorter than 3 s",
        "loudness_range_lu": "less than 3 s of audio above the gates",
        "hook_loudness_diff_lu": "no 400 ms block above -70 LUFS in the opening",
        "frame_rms_p10_dbfs": "audio shorter than one frame",
        "frame_rms_p90_dbfs": "audio shorter than one frame",
        "frame_rms_std_dbfs": "audio shorter than two frames",
        "silence_ratio": "no window inside the audio",
    }
    return {name: reason for name, reason in reasons.items() if np.isnan(features[name])}


def _without_level(
    windows: AudioWindows | None, reason: str, shares: dict[str, float], elapsed: dict[str, float] | None = None
) -> Artifact:
    nothing = np.full(0 if windows is None else len(windows.mask), np.nan, dtype=np.float32)
    arrays = {
        **window_arrays(windows),
        **dict.fromkeys(("segment_rms_dbfs", "segment_peak_dbfs", "segment_lufs"), nothing),
        "lufs_present": np.array(False),
        **feature_arrays(dict.fromkeys(FEATURES, float("nan")) | shares),
    }
    meta = {"thresholds_version": THRESHOLDS.version}
    return Artifact.empty(reason, arrays, meta=meta, stage_timings_ms=elapsed or {})
