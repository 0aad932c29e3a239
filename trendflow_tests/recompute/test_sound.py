"""Loudness, tempo and the embedding of sound, recomputed from docs/components.md, the catalogue and stored audio."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import librosa
import numpy as np
import onnxruntime
import pytest
import scipy.signal
import soxr

from trendflow.components.audio import tempo_extractor
from trendflow_tests.components.audio.signals import MONO_RATE, audio_inputs, drum_pattern, uniform_windows
from trendflow_tests.recompute.compare import assert_scalars, unit, windows_inside
from trendflow_tests.recompute.stored import XDIST_GROUP, StoredRun

pytestmark = pytest.mark.xdist_group(XDIST_GROUP)

# ITU-R BS.1770-4, tables 1 and 2: the K-weighting at 48 kHz.
K_SHELF = (1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585)
K_HIGH_PASS = (1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)


def samples_of(arrays: Mapping[str, np.ndarray], row: int, rate: int) -> slice:
    return slice(round(arrays["segment_start_sec"][row] * rate), round(arrays["segment_end_sec"][row] * rate))


def decibel(amplitude: Any) -> Any:
    return 20 * np.log10(np.maximum(amplitude, 1e-6))


def loudness(power: Any) -> Any:
    return -0.691 + 10 * np.log10(power)


def powers(weighted: np.ndarray, rate: int, window_s: float, step_s: float) -> np.ndarray:
    """Sum over the channels of the mean square in every window."""
    size, step = round(window_s * rate), round(step_s * rate)
    squares = np.cumsum(np.sum(np.append(np.zeros((1, weighted.shape[1])), weighted, axis=0) ** 2, axis=1))
    starts = np.arange(0, len(weighted) - size + 1, step)
    return np.asarray((squares[starts + size] - squares[starts]) / size)


def gated(power: np.ndarray, relative: float) -> np.ndarray:
    power = power[loudness(power) >= -70]
    return power[loudness(power) >= loudness(power.mean()) + relative]


def k_weighted(signal: np.ndarray) -> np.ndarray:
    return np.asarray(scipy.signal.lfilter(*K_HIGH_PASS, scipy.signal.lfilter(*K_SHELF, signal, axis=0), axis=0))


def test_loudness_of_the_whole_signal(finished: StoredRun) -> None:
    signal, rate = finished.audio("audio_full.wav")
    mono, mono_rate = finished.audio("audio.wav")
    assert (rate, mono_rate, signal.shape[1]) == (48_000, 22_050, 2)
    weighted = k_weighted(signal)
    integrated = loudness(gated(powers(weighted, rate, 0.4, 0.1), -10).mean())
    opening = loudness(gated(powers(weighted[: 5 * rate], rate, 0.4, 0.1), -10).mean())
    quiet, loud = np.percentile(loudness(gated(powers(weighted, rate, 3.0, 0.1), -20)), (10, 95))
    oversampled = soxr.resample(signal, rate, 4 * rate, quality="HQ")
    peak, rms = np.abs(signal).max(), np.sqrt(np.mean(signal**2))
    frames = np.lib.stride_tricks.sliding_window_view(mono[:, 0], 2048)[::512]
    levels = decibel(np.sqrt(np.mean(frames**2, axis=1)))
    assert_scalars(
        finished,
        "loudness_extractor",
        {
            "lufs_integrated": integrated,
            "lufs_momentary_max": loudness(powers(weighted, rate, 0.4, 0.01).max()),
            "lufs_short_term_max": loudness(powers(weighted, rate, 3.0, 0.01).max()),
            "loudness_range_lu": loud - quiet,
            "hook_loudness_diff_lu": opening - integrated,
            "true_peak_dbtp": decibel(max(np.abs(oversampled).max(), peak)),
            "sample_peak_dbfs": decibel(peak),
            "rms_dbfs": decibel(rms),
            "crest_factor_db": decibel(peak) - decibel(rms),
            "frame_rms_std_dbfs": levels.std(),
            "frame_rms_p10_dbfs": np.percentile(levels, 10),
            "frame_rms_p90_dbfs": np.percentile(levels, 90),
            "clipping_ratio": np.mean(np.abs(signal) >= 0.999),
        },
        rtol=5e-6,
    )


def test_loudness_of_the_windows(finished: StoredRun) -> None:
    signal, rate = finished.audio("audio_full.wav")
    stored, weighted = finished.arrays("loudness_extractor"), k_weighted(signal)
    measured = np.flatnonzero(stored["segment_mask"])
    assert len(measured) > 20
    expected: dict[str, list[float]] = {"segment_rms_dbfs": [], "segment_peak_dbfs": [], "segment_lufs": []}
    for row in measured:
        window = samples_of(stored, row, rate)
        expected["segment_rms_dbfs"].append(decibel(np.sqrt(np.mean(signal[window] ** 2))))
        expected["segment_peak_dbfs"].append(decibel(np.abs(signal[window]).max()))
        expected["segment_lufs"].append(loudness(np.sum(np.mean(weighted[window] ** 2, axis=0))))
    for name, values in expected.items():
        np.testing.assert_allclose(stored[name][measured], values, rtol=1e-6)
        assert np.isnan(stored[name][~stored["segment_mask"]]).all()
    assert_scalars(
        finished, "loudness_extractor", {"silence_ratio": np.mean(np.array(expected["segment_rms_dbfs"]) < -60)}
    )


def test_clap_extractor(finished: StoredRun) -> None:
    entry, folder = finished.model("audio_encoder")
    how = entry["preprocessing"]
    assert (how["padding"], how["compression"]) == ("repeat", "log10_scaled")
    signal, rate = finished.audio("audio_full.wav")
    stored = finished.arrays("clap_extractor")
    inside = windows_inside(finished, "clap")
    power = np.array([np.mean(signal[samples_of(stored, row, rate)] ** 2) for row in inside])
    np.testing.assert_allclose(stored["segment_rms_dbfs"][inside], 10 * np.log10(power), rtol=1e-6)
    audible = inside[10 * np.log10(power) >= -60]
    np.testing.assert_array_equal(np.flatnonzero(stored["segment_mask"]), audible)

    mono = soxr.resample(signal.mean(axis=1), rate, how["sample_rate"], quality="HQ")
    mono *= 10 ** (how["level_dbfs"] / 20) / np.sqrt(power[np.isin(inside, audible)].mean())
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    frames = entry["inputs"][0]["shape"][1]
    raw = []
    for row in audible:
        window = mono[samples_of(stored, row, how["sample_rate"])]
        window = np.tile(window, math.ceil(how["input_samples"] / len(window)))[: how["input_samples"]]
        spectrum = librosa.feature.melspectrogram(
            y=window,
            sr=how["sample_rate"],
            n_fft=how["n_fft"],
            hop_length=how["hop"],
            n_mels=how["mel_bands"],
            fmin=how["mel_low_hz"],
            fmax=how["mel_high_hz"],
            pad_mode="reflect",
        )
        patch = np.log10(1 + how["power_factor"] * spectrum).T[:frames]
        raw.append(session.run(None, {entry["inputs"][0]["name"]: patch[None].astype(np.float32)})[0][0])
    vectors = unit(np.array(raw))
    np.testing.assert_allclose(stored["embedding_sequence"][audible], vectors, atol=1e-5)

    mean = vectors.mean(axis=0)
    np.testing.assert_allclose(stored["embedding"], mean / np.linalg.norm(mean), atol=1e-5)
    change = 1 - np.sum(vectors[1:] * vectors[:-1], axis=1)
    assert_scalars(
        finished,
        "clap_extractor",
        {
            "embedding_concentration": np.linalg.norm(mean),
            "embedding_change_mean": change.mean(),
            "embedding_change_p90": np.percentile(change, 90),
            "valid_window_ratio": len(audible) / len(inside),
        },
        rtol=1e-4,
    )


def onset_envelope(mono: np.ndarray, window: slice) -> np.ndarray:
    """Mean rise in dB over 128 mel bands per hop of the frames that lie inside the window."""
    starts = range(-(-window.start // 512) * 512, window.stop - 2048 + 1, 512)
    frames = mono[starts[0] : starts[-1] + 2048]
    power = librosa.feature.melspectrogram(y=frames, sr=MONO_RATE, n_fft=2048, hop_length=512, n_mels=128, center=False)
    assert power.shape[1] == len(starts)
    level = 10 * np.log10(np.maximum(power / power.max(), 1e-10))
    level = np.maximum(level, level.max() - 80)
    return np.asarray(np.maximum(np.diff(level, axis=1), 0).mean(axis=0))


def vertex(values: np.ndarray, near: float) -> tuple[float, float]:
    """Place and height of the parabola through the highest of three values and its neighbours."""
    top = max(range(round(near) - 1, round(near) + 2), key=lambda lag: values[lag])
    a, b, c = values[top - 1 : top + 2]
    if not a <= b >= c or a == b == c:
        return near, float(np.interp(near, np.arange(len(values)), values))
    return top + (a - c) / (2 * (a - 2 * b + c)), b - (a - c) ** 2 / (8 * (a - 2 * b + c))


def beat(envelope: np.ndarray) -> tuple[list[float], list[float], float, float]:
    """Rates and evidence of the best three candidates, pulse clarity and the gate it must pass."""
    n, per_minute = len(envelope), 60 * MONO_RATE / 512
    e = envelope - envelope.mean()
    r = np.array([np.sum(e[: n - lag] * e[lag:]) / (n - lag) for lag in range(n)])
    r /= r[0]
    smooth = np.convolve(r, (0.25, 0.5, 0.25), mode="same")
    low, high = max(40.0, per_minute * 3.5 / n) / 1.01, 220 * 1.01
    grid = np.geomspace(low, high, math.ceil(math.log(high / low) / math.log(1.005)) + 1)
    evidence = []
    for bpm in grid:
        lags = [k * per_minute / bpm for k in (1, 2, 3, 4) if k * per_minute / bpm <= int(0.75 * n)]
        teeth = np.interp(lags, np.arange(n), smooth)
        comb = teeth.mean() if len(lags) and teeth[0] >= teeth.mean() / 2 else 0.0
        evidence.append(comb * np.exp(-0.5 * np.log2(bpm / 120) ** 2))
    tops, _ = scipy.signal.find_peaks(evidence)
    rates: list[float] = []
    strengths: list[float] = []
    clarity = gate = float("nan")
    for top in sorted((top for top in tops if evidence[top] > 0), key=lambda top: -evidence[top]):
        lag, height = vertex(r, per_minute / grid[top])
        for k in (2, 3, 4):
            if k * lag + 2 > int(0.75 * n):
                break
            place, high_there = vertex(r, k * lag)
            if high_there < height / 2:
                break
            lag = place / k
        bpm = per_minute / lag
        if low <= bpm <= high and all(max(bpm / other, other / bpm) > 1.02 for other in rates):
            if not rates:
                clarity, gate = height, max(0.20, 4 / math.sqrt(n - lag))
            rates.append(bpm)
            strengths.append(evidence[top])
        if len(rates) == 3:
            break
    return rates, strengths, clarity, gate


def assert_tempo(stored: Mapping[str, np.ndarray], mono: np.ndarray, inside: np.ndarray) -> None:
    """The arrays and scalars of tempo_extractor for audio with windows that are all long and loud enough."""
    features = dict(zip(stored["feature_names"].tolist(), stored["feature_values"].tolist(), strict=True))
    found = [beat(onset_envelope(mono, samples_of(stored, row, MONO_RATE))) for row in inside]
    for row, (rates, strengths, clarity, _) in zip(inside, found, strict=True):
        np.testing.assert_allclose(stored["bpm_candidates_by_segment"][row][: len(rates)], rates, rtol=1e-4)
        np.testing.assert_allclose(stored["bpm_candidate_strength_by_segment"][row][: len(rates)], strengths, rtol=1e-4)
        np.testing.assert_allclose(stored["pulse_clarity_by_segment"][row], clarity, rtol=1e-4)
    bpm = np.array([rates[0] if clarity >= gate else np.nan for rates, _, clarity, gate in found])
    np.testing.assert_allclose(stored["bpm_by_segment"][inside], bpm, rtol=1e-4)
    np.testing.assert_array_equal(np.flatnonzero(stored["segment_mask"]), inside[np.isfinite(bpm)])
    clarity = np.array([clarity for _, _, clarity, _ in found])
    valid = np.isfinite(bpm)
    expected = {
        "pulse_clarity_mean": clarity.mean(),
        "pulse_clarity_max": clarity.max(),
        "tempo_valid_ratio": valid.mean(),
        **dict.fromkeys(("tempo_bpm", "tempo_bpm_std", "tempo_agreement", "tempo_drift_bpm_per_min"), float("nan")),
    }
    if valid.any():
        median = sorted(bpm[valid])[(valid.sum() - 1) // 2]
        octaves = np.log2(bpm[valid] / median)
        expected["tempo_bpm"] = median
        expected["tempo_agreement"] = np.mean(np.abs(2.0 ** (octaves - np.round(octaves)) - 1) <= 0.04)
    if valid.sum() >= 2:
        expected["tempo_bpm_std"] = bpm[valid].std()
    if valid.sum() >= 3:
        minutes = stored["segment_center_sec"][inside][valid] / 60
        expected["tempo_drift_bpm_per_min"] = np.polyfit(minutes - minutes.mean(), bpm[valid], 1)[0]
    wrong = {
        name: (value, features[name])
        for name, value in expected.items()
        if not np.isclose(value, features[name], rtol=1e-3, atol=1e-3, equal_nan=True)
    }
    assert not wrong, f"recomputed and stored values differ: {wrong}"


def test_tempo_of_speech(finished: StoredRun) -> None:
    """No window of the sample carries a beat, and the numbers that say so are recomputed."""
    mono, rate = finished.audio("audio.wav")
    assert rate == MONO_RATE
    assert_tempo(finished.arrays("tempo_extractor"), mono[:, 0], windows_inside(finished, "tempo"))


def test_tempo_of_drums() -> None:
    """SYNTHETIC: drums that change from 100 to 132 beats a minute, so that windows differ."""
    mono = np.concatenate([drum_pattern(100, 20), drum_pattern(132, 20)]).astype(np.float32)
    windows = uniform_windows(40, 10, 5, family="tempo")
    artifact = tempo_extractor.run(audio_inputs(np.zeros((10, 1)), mono=mono, windows=windows))
    assert artifact.status == "ok"
    assert_tempo(artifact.arrays, mono, np.arange(len(windows.start_sec)))
