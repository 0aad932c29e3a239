"""tempo_extractor: beat rate per window and overall, claimed only where the onsets show a pulse."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from trendflow.components.audio._onset_envelope import HOP, onset_envelopes
from trendflow.components.audio._tempo import CANDIDATES, TempoEstimate, estimate_tempo
from trendflow.components.audio._windows import (
    AUDIO,
    NO_AUDIO,
    SampleRanges,
    dbfs,
    need_windows,
    sample_ranges,
    window_arrays,
)
from trendflow.components.base import AudioWindows, ComponentInputs, ComponentSpec
from trendflow.contracts.artifact import Artifact, feature_arrays
from trendflow.contracts.errors import TrendFlowError
from trendflow.contracts.thresholds import THRESHOLDS

SPEC = ComponentSpec(
    name="tempo_extractor",
    producer_version="1.0.0",
    schema_version="tempo_extractor_npz_v2",
    hard=("segmenter",),
    reads=("audio",),
    reference=THRESHOLDS.reference,
)

FEATURES = (
    "tempo_bpm",
    "tempo_bpm_std",
    "tempo_valid_ratio",
    "tempo_agreement",
    "pulse_clarity_mean",
    "pulse_clarity_max",
    "tempo_drift_bpm_per_min",
)

_DRIFT_WINDOWS = 3


@dataclass(frozen=True)
class TempoConstants:
    bpm_min: float
    bpm_max: float
    min_window_s: float
    min_periods: float
    pulse_clarity_min: float
    chance_factor: float
    onset_strength_min: float
    agreement: float


TEMPO = THRESHOLDS.bind("tempo_extractor", TempoConstants)


@dataclass(frozen=True)
class _Windows:
    """Results over the N windows; NaN where a window was not measured."""

    bpm: np.ndarray  # float64 [N], NaN also without enough clarity
    clarity: np.ndarray  # float64 [N], NaN also without onsets
    candidates: np.ndarray  # float64 [N, 3]
    strength: np.ndarray  # float64 [N, 3]

    @property
    def valid(self) -> np.ndarray:
        return np.isfinite(self.bpm)


def run(inputs: ComponentInputs) -> Artifact:
    """Estimate the tempo of every window. Raises `dependency_missing` without windows or signal."""
    audio = inputs.need_audio()
    if not audio.present:
        return _empty(NO_AUDIO, None)
    windows = need_windows(audio)
    if len(audio.mono) == 0:
        raise TrendFlowError("dependency_missing", "The audio signal of this run is missing.", kind="wav")
    started = time.perf_counter()
    ranges = sample_ranges(windows, audio.mono_rate, len(audio.mono))
    silent = _window_rms_dbfs(audio.mono, ranges) < AUDIO.silence_dbfs
    if ranges.mask.any() and silent[ranges.mask].all():
        return _empty("audio_silent", windows)
    # Half a sample of tolerance: window times are rounded to samples.
    long_enough = ranges.stop - ranges.start + 0.5 >= TEMPO.min_window_s * audio.mono_rate
    inside = ranges.mask & long_enough
    if not inside.any():
        return _empty("audio_too_short", windows)
    measurable = SampleRanges(ranges.start, ranges.stop, inside & ~silent)
    envelopes = [
        envelope if len(envelope) and envelope.mean() >= TEMPO.onset_strength_min else np.zeros(0)
        for envelope in onset_envelopes(audio.mono, audio.mono_rate, measurable, inputs.progress)
    ]
    enveloped = time.perf_counter()
    found = _estimate(envelopes, audio.mono_rate / HOP)
    features = _features(found, inside, windows.center_sec)
    claimed = found.valid.any()
    return Artifact(
        arrays={
            **window_arrays(windows, found.valid),
            **_tempo_arrays(found, _warnings(found, features)),
            **feature_arrays(features),
        },
        status="ok" if claimed else "empty",
        empty_reason=None if claimed else "tempo_all_segments_failed",
        meta={"thresholds_version": THRESHOLDS.version, "absent_features": _absent(features) if claimed else {}},
        stage_timings_ms={
            "envelope": (enveloped - started) * 1e3,
            "estimate": (time.perf_counter() - enveloped) * 1e3,
        },
    )


def _window_rms_dbfs(mono: np.ndarray, ranges: SampleRanges) -> np.ndarray:
    levels = np.full(len(ranges.mask), np.nan)
    for i in np.flatnonzero(ranges.mask):
        window = np.asarray(mono[ranges.start[i] : ranges.stop[i]], dtype=np.float64)
        levels[i] = dbfs(np.sqrt(np.mean(window * window)))
    return levels


def _estimate(envelopes: list[np.ndarray], frame_rate: float) -> _Windows:
    estimates: list[TempoEstimate] = [
        estimate_tempo(envelope, frame_rate, TEMPO.bpm_min, TEMPO.bpm_max, TEMPO.min_periods) for envelope in envelopes
    ]
    clarity = np.array([estimate.clarity for estimate in estimates])
    # A short window averages few products, so noise reaches higher values there: the gate rises with that chance.
    gate = np.maximum(TEMPO.pulse_clarity_min, TEMPO.chance_factor * np.array([e.chance for e in estimates]))
    candidates = np.array([estimate.bpm for estimate in estimates])
    return _Windows(
        bpm=np.where(clarity >= gate, candidates[:, 0], np.nan),
        clarity=clarity,
        candidates=candidates,
        strength=np.array([estimate.strength for estimate in estimates]),
    )


def _features(found: _Windows, inside: np.ndarray, center_s: np.ndarray) -> dict[str, float]:
    bpm, measured = found.bpm[found.valid], found.clarity[np.isfinite(found.clarity)]
    nan = float("nan")
    features = dict.fromkeys(FEATURES, nan) | {"tempo_valid_ratio": float(found.valid.sum() / inside.sum())}
    if len(measured):
        features |= {"pulse_clarity_mean": float(measured.mean()), "pulse_clarity_max": float(measured.max())}
    if len(bpm):
        # The lower of two middle values: their mean would be a rate that no window has when they are an octave apart.
        median = float(np.percentile(bpm, 50, method="lower"))
        octaves = np.log2(bpm / median)
        folded = np.abs(2.0 ** (octaves - np.rint(octaves)) - 1.0)
        features |= {
            "tempo_bpm": median,
            "tempo_bpm_std": float(bpm.std()) if len(bpm) > 1 else nan,
            "tempo_agreement": float(np.mean(folded <= TEMPO.agreement)),
        }
    if len(bpm) >= _DRIFT_WINDOWS:
        minutes = center_s[found.valid] / 60.0
        centred = minutes - minutes.mean()
        features["tempo_drift_bpm_per_min"] = float(centred @ bpm / (centred @ centred))
    return features


def _warnings(found: _Windows, features: dict[str, float]) -> list[str]:
    warnings = []
    if found.valid.sum() < _DRIFT_WINDOWS:
        warnings.append("few_valid_windows")
    if features["tempo_agreement"] < 0.5:
        warnings.append("windows_disagree")
    return warnings


def _absent(features: dict[str, float]) -> dict[str, str]:
    reasons = {
        "tempo_bpm_std": "fewer than 2 valid windows",
        "tempo_drift_bpm_per_min": f"fewer than {_DRIFT_WINDOWS} valid windows",
    }
    return {name: reason for name, reason in reasons.items() if np.isnan(features[name])}


def _tempo_arrays(found: _Windows, warnings: list[str]) -> dict[str, np.ndarray]:
    return {
        "bpm_by_segment": found.bpm.astype(np.float32),
        "pulse_clarity_by_segment": found.clarity.astype(np.float32),
        "bpm_candidates_by_segment": found.candidates.astype(np.float32),
        "bpm_candidate_strength_by_segment": found.strength.astype(np.float32),
        "tempo_warnings": np.array(warnings, dtype=np.str_),
    }


def _empty(reason: str, windows: AudioWindows | None) -> Artifact:
    n = 0 if windows is None else len(windows.mask)
    rows, candidates = np.full(n, np.nan), np.full((n, CANDIDATES), np.nan)
    arrays = {
        **window_arrays(windows),
        **_tempo_arrays(_Windows(rows, rows, candidates, candidates), []),
        **feature_arrays(dict.fromkeys(FEATURES, float("nan"))),
    }
    return Artifact.empty(reason, arrays, meta={"thresholds_version": THRESHOLDS.version})
