"""clap_extractor: one embedding of the sound per window, from the role `audio_encoder`.

Sample rate, input length, padding and spectral front end are facts of the catalogue entry. Windows that the model's
input cannot hold are refused: cutting a piece out of them would make the result depend on where it is cut.

Method: the mean of all channels of `audio_full.wav` is resampled to the entry's `sample_rate` (soxr, quality HQ), and
the windows are cut out of that. Where the entry states `level_dbfs`, one factor for the whole video brings the mean
power of the windows with sound (of segment_rms_dbfs) to it, so that quiet passages stay quieter than loud ones.
"""

from __future__ import annotations

import time

import numpy as np
import soxr

from trendflow.components._entry import need_model
from trendflow.components.audio._mel_frontend import MelFrontEnd
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
from trendflow.models.interface import ModelHandle

SPEC = ComponentSpec(
    name="clap_extractor",
    producer_version="1.0.0",
    schema_version="clap_extractor_npz_v2",
    hard=("segmenter",),
    reads=("audio_full",),
    roles=("audio_encoder",),
    reference=THRESHOLDS.reference,
)

FEATURES = ("embedding_concentration", "embedding_change_mean", "embedding_change_p90", "valid_window_ratio")

_CHUNK_S = 30


def run(inputs: ComponentInputs) -> Artifact:
    """Embed every window that holds sound.

    Raises `dependency_missing` (no windows, no signal, no model), `model_spec_invalid` (the entry describes no audio
    encoder, a window is longer than the model's input, the embedding has another width) or
    `artifact_validation_failed` (a zero or non-finite embedding).
    """
    audio, handle = inputs.need_audio(), need_model(inputs, "audio_encoder")
    encoder = _Encoder(handle)
    if not audio.present:
        return _empty(NO_AUDIO, None, encoder)
    windows = need_windows(audio)
    if len(audio.full) == 0:
        raise TrendFlowError("dependency_missing", "The audio signal of this run is missing.", kind="wav")
    encoder.front_end_fits(windows)
    started = time.perf_counter()
    levels, inside = _window_levels(audio, sample_ranges(windows, audio.full_rate, len(audio.full)))
    if not inside.any():
        return _empty("audio_too_short", windows, encoder)
    valid = inside & (levels >= AUDIO.silence_dbfs)
    if not valid.any():
        return _empty("audio_silent", windows, encoder, valid_window_ratio=0.0)
    signal = mono_signal(audio, encoder.front_end.rate)
    prepared = time.perf_counter()
    sequence = np.full((len(valid), encoder.width), np.nan, np.float32)
    ranges = sample_ranges(windows, encoder.front_end.rate, len(signal))
    signal *= _gain(encoder.front_end.level_dbfs, levels[valid])
    sequence[valid] = _embed(inputs, encoder, signal, ranges, np.flatnonzero(valid))
    mean = sequence[valid].astype(np.float64).mean(axis=0)
    # Opposite vectors can cancel out; what is left then has no direction.
    concentration = min(1.0, float(np.linalg.norm(mean)))
    present = concentration > 1e-6
    features = _features(sequence[valid], concentration) | {"valid_window_ratio": float(valid.sum() / inside.sum())}
    return Artifact(
        arrays={
            **window_arrays(windows, valid),
            "embedding_sequence": sequence,
            "embedding": (mean / concentration if present else np.full(encoder.width, np.nan)).astype(np.float32),
            "embedding_present": np.array(present),
            "segment_rms_dbfs": levels.astype(np.float32),
            **feature_arrays({name: features[name] for name in FEATURES}),
        },
        models_used=(handle.used,),
        device_used=handle.device_used,
        meta={"thresholds_version": THRESHOLDS.version, "absent_features": _absent(features, present)},
        stage_timings_ms={
            "prepare": (prepared - started) * 1e3,
            "embed": (time.perf_counter() - prepared) * 1e3,
        },
    )


class _Encoder:
    """An audio encoder with its front end: waveforms of the model's length → unit vectors."""

    def __init__(self, handle: ModelHandle) -> None:
        entry = handle.entry
        if entry.embedding_dim is None or len(entry.inputs) != 1 or len(entry.outputs) != 1:
            raise TrendFlowError("model_spec_invalid", f"The entry {entry.name} describes no audio encoder.")
        self.handle, self.width, self.front_end = handle, entry.embedding_dim, MelFrontEnd.of(entry)
        self._input, self._output = entry.inputs[0].name, entry.outputs[0].name

    def front_end_fits(self, windows: AudioWindows) -> None:
        """Raises `model_spec_invalid` when a window of the family is longer than the model's input."""
        longest = max([windows.window_sec, *(windows.end_sec - windows.start_sec).tolist()])
        # Half a sample of tolerance: window times are rounded to samples.
        if longest * self.front_end.rate > self.front_end.samples + 0.5:
            raise TrendFlowError(
                "model_spec_invalid",
                f"Windows of {longest:g} s are longer than the input of {self.handle.entry.name}, "
                f"{self.front_end.samples / self.front_end.rate:g} s.",
                entry=self.handle.entry.name,
            )

    def __call__(self, waveforms: np.ndarray) -> np.ndarray:
        """float32 `[n, samples]` → float32 `[n, D]`, unit length."""
        raw = self.handle.infer({self._input: self.front_end(waveforms)})[self._output]
        if raw.shape != (len(waveforms), self.width):
            raise TrendFlowError(
                "model_spec_invalid",
                f"The embedding of {self.handle.entry.name} is not {self.width} wide.",
                shape=list(raw.shape),
            )
        exact = raw.astype(np.float64)
        lengths = np.linalg.norm(exact, axis=1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            raise TrendFlowError("artifact_validation_failed", "A sound embedding is zero or not finite.")
        return (exact / lengths).astype(np.float32)


def _embed(
    inputs: ComponentInputs, encoder: _Encoder, signal: np.ndarray, ranges: SampleRanges, rows: np.ndarray
) -> np.ndarray:
    """Unit vectors of the windows `rows`, float32 `[len(rows), D]`."""
    front_end = encoder.front_end

    def step(start: int, stop: int) -> np.ndarray:
        pieces = [signal[ranges.start[row] : ranges.stop[row]][: front_end.samples] for row in rows[start:stop]]
        vectors = encoder(np.stack([front_end.fit(piece) for piece in pieces]))
        inputs.progress(stop, len(rows))
        return vectors

    return np.concatenate(inputs.runner.run(len(rows), step, encoder.handle.entry.max_batch_size))


def _gain(wanted_dbfs: float | None, levels_dbfs: np.ndarray) -> np.float32:
    """Factor that brings the mean power of the valid windows to the level the model wants.

    One factor for the whole video: quiet passages stay quieter than loud ones.
    """
    if wanted_dbfs is None:
        return np.float32(1.0)
    power = np.mean(10.0 ** (levels_dbfs / 10.0))
    return np.float32(10.0 ** (wanted_dbfs / 20.0) / np.sqrt(power))


def mono_signal(audio: AudioInput, rate: int) -> np.ndarray:
    """Mean of all channels at `rate`, float32 `[n]`; sample 0 stays video time 0.

    Read and resampled in pieces, so that a long multi-channel signal is never held twice.
    """
    total = len(audio.full)
    resampler = soxr.ResampleStream(audio.full_rate, rate, 1, dtype="float32", quality="HQ")
    signal = np.zeros(-(-total * rate // audio.full_rate), np.float32)
    filled, chunk = 0, _CHUNK_S * audio.full_rate
    for start in range(0, total, chunk):
        mono = audio.full[start : start + chunk].mean(axis=1, dtype=np.float32)
        piece = resampler.resample_chunk(mono, last=start + chunk >= total)[: len(signal) - filled]
        signal[filled : filled + len(piece)] = piece
        filled += len(piece)
    return signal[:filled]


def _window_levels(audio: AudioInput, ranges: SampleRanges) -> tuple[np.ndarray, np.ndarray]:
    """RMS level of each window over all channels, float64 dBFS `[N]` (NaN outside), and which lie inside the audio."""
    levels = np.full(len(ranges.mask), np.nan)
    for row in np.flatnonzero(ranges.mask):
        samples = np.asarray(audio.full[ranges.start[row] : ranges.stop[row]], np.float64)
        levels[row] = dbfs(np.sqrt(np.mean(samples * samples)))
    return levels, ranges.mask


def _features(unit: np.ndarray, concentration: float) -> dict[str, float]:
    """Scalars of the valid windows' unit vectors `[n, D]`, in order of time."""
    exact = unit.astype(np.float64)
    # Rounding may carry the product of equal vectors past 1 by an ulp.
    change = 1.0 - np.clip(np.einsum("nd,nd->n", exact[1:], exact[:-1]), -1.0, 1.0)
    return {
        "embedding_concentration": concentration,
        "embedding_change_mean": float(change.mean()) if len(change) else float("nan"),
        "embedding_change_p90": float(np.percentile(change, 90)) if len(change) else float("nan"),
    }


def _absent(features: dict[str, float], present: bool) -> dict[str, str]:
    reasons = dict.fromkeys(("embedding_change_mean", "embedding_change_p90"), "fewer than 2 windows with sound")
    absent = {name: reason for name, reason in reasons.items() if np.isnan(features[name])}
    return absent | ({} if present else {"embedding": "the vectors of the windows cancel out"})


def _empty(reason: str, windows: AudioWindows | None, encoder: _Encoder, **measured: float) -> Artifact:
    n = 0 if windows is None else len(windows.mask)
    return Artifact.empty(
        reason,
        arrays={
            **window_arrays(windows),
            "embedding_sequence": np.full((n, encoder.width), np.nan, np.float32),
            "embedding": np.full(encoder.width, np.nan, np.float32),
            "embedding_present": np.array(False),
            "segment_rms_dbfs": np.full(n, np.nan, np.float32),
            **feature_arrays(dict.fromkeys(FEATURES, float("nan")) | measured),
        },
        # The model that would have run: its width is in the arrays.
        models_used=(encoder.handle.used,),
        device_used=encoder.handle.device_used,
        meta={"thresholds_version": THRESHOLDS.version},
    )
